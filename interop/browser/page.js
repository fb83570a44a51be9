// js-libp2p in a real browser. The suite calls exchange(), here with the URL of a peer, and reads what comes of it.
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { webTransport } from '@libp2p/webtransport'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const ECHO = '/kith-interop/echo/1'
const PING = '/ipfs/ping/1.0.0'
const CHUNK = 64 * 1024
const PINGS = 5
const STREAMS = 16
const SMALL = 100_000 // bytes of each of the streams at once

// exchange dials an address as a new peer, asks the remote who it is, pings it, and lets it echo bytes over one stream and
// then over many at once. It never throws: an error is a field of the result.
globalThis.exchange = async (address, bytes) => {
  const result = {}
  let node
  try {
    node = await createLibp2p({
      transports: [webTransport(), webRTCDirect(), webSockets()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      connectionGater: { denyDialMultiaddr: () => false }, // in browsers js-libp2p would not dial loopback
      services: { identify: identify(), ping: ping() }
    })
    result.self = node.peerId.toString()
    const identified = new Promise(resolve => {
      node.addEventListener('peer:identify', ({ detail }) => { resolve(detail) }, { once: true })
    })
    let start = performance.now()
    const connection = await node.dial(multiaddr(address))
    result.dialMillis = performance.now() - start
    result.peer = connection.remotePeer.toString()
    result.addr = connection.remoteAddr.toString()

    const { agentVersion, protocols, observedAddr, signedPeerRecord } = await identified
    result.agent = agentVersion ?? ''
    result.protocols = protocols
    result.observed = observedAddr?.toString() ?? ''
    result.signedRecord = signedPeerRecord != null

    result.pingMillis = []
    for (let i = 0; i < PINGS; i++) {
      // js-libp2p opens no second stream for pings before the first has ended, and that is after its answer.
      await Promise.all(connection.streams.filter(s => s.protocol === PING).map(ended))
      result.pingMillis.push(await node.services.ping.ping(connection.remotePeer))
    }

    start = performance.now()
    await echo(connection, bytes)
    result.echoMillis = performance.now() - start
    start = performance.now()
    await Promise.all(Array.from({ length: STREAMS }, () => echo(connection, SMALL)))
    result.streamsMillis = performance.now() - start
  } catch (err) {
    result.error = describe(err)
  }
  await node?.stop().catch(err => { result.error ??= `stop: ${describe(err)}` })
  return result
}

// ended waits until a stream, which has not ended yet, has.
function ended (stream) {
  return new Promise(resolve => stream.addEventListener('close', resolve, { once: true }))
}

async function echo (connection, size) {
  const sent = randomBytes(size)
  const stream = await connection.newStream(ECHO, { maxOutboundStreams: 2 * STREAMS })
  const answer = collect(stream, size)
  for (let at = 0; at < size; at += CHUNK) {
    await send(stream, sent.subarray(at, at + CHUNK))
  }
  await stream.close()
  const received = await answer
  if (await sha256(received) !== await sha256(sent)) {
    throw new Error(`sent ${size} bytes, got ${received.byteLength} back, or not the same ones`)
  }
}

// collect reads a stream to its end, or a little past size.
async function collect (stream, size) {
  const bytes = new Uint8Array(size + 1)
  let n = 0
  for await (const data of stream) {
    const chunk = data.subarray().subarray(0, bytes.byteLength - n)
    bytes.set(chunk, n)
    n += chunk.byteLength
  }
  return bytes.subarray(0, n)
}

// send waits until the stream takes more.
async function send (stream, data) {
  if (stream.send(data)) {
    return
  }
  const waiting = new AbortController()
  await new Promise((resolve, reject) => {
    stream.addEventListener('drain', resolve, { signal: waiting.signal })
    stream.addEventListener('close', ({ error }) => { reject(error ?? new Error('closed while sending')) }, { signal: waiting.signal })
  }).finally(() => { waiting.abort() })
}

function randomBytes (size) {
  const bytes = new Uint8Array(size)
  for (let at = 0; at < size; at += 65536) { // what getRandomValues gives at once
    crypto.getRandomValues(bytes.subarray(at, at + 65536))
  }
  return bytes
}

async function sha256 (bytes) {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)).toHex()
}

// describe has also the errors of the addresses that were tried.
function describe (err) {
  const causes = (err.errors ?? []).map(describe)
  return [`${err.name}: ${err.message}`, ...causes].join('; ')
}
