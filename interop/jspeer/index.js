// js-libp2p behind the command line of Kith's interoperability suite: see ../README.md for modes, flags and events.
import { createHash, randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { quic } from '@chainsafe/libp2p-quic'
import { generateKeyPair, publicKeyFromProtobuf } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { mdns } from '@libp2p/mdns'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const ECHO = '/kith-interop/echo/1'
const HALF_CLOSE = '/kith-interop/halfclose/1'
const RESET = '/kith-interop/reset/1'
const PUSHED = '/kith-interop/pushed/1'
const PUSHED_GREETING = 'pushed'
const PERF = '/perf/1.0.0' // https://github.com/libp2p/specs/blob/master/perf/perf.md
const CHUNK = 64 * 1024
const MAX_STREAMS = 128 // of one protocol on a connection, as in peercmd

const KEY_TYPES = { ed25519: 'Ed25519', secp256k1: 'secp256k1', rsa: 'RSA' } // js-libp2p makes no peer ID of an ECDSA key
const MODES = ['dial', 'listen', 'mdns']

function emit (event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
}

async function start (options, isMdns) {
  const encrypters = { noise, tls }
  const wanted = options.security === '' ? ['noise', 'tls'] : [options.security]
  const node = await createLibp2p({
    start: false,
    privateKey: await generateKeyPair(KEY_TYPES[options['key-type']]),
    nodeInfo: { userAgent: 'js-libp2p/jspeer' },
    addresses: { listen: options.listen === 'none' ? [] : options.listen.split(',') },
    transports: [tcp(), webSockets(), quic(), webRTCDirect()],
    connectionEncrypters: wanted.map(name => encrypters[name]()),
    streamMuxers: [yamux()],
    // The interface cannot be chosen: the suite runs this in a network namespace that has loopback only.
    peerDiscovery: isMdns ? [mdns({ serviceTag: `${options.service}.local`, interval: 1000 })] : [],
    services: { identify: identify(), identifyPush: identifyPush(), ping: ping() }
  })
  node.addEventListener('connection:open', ({ detail: c }) => {
    emit('connected', { peer: c.remotePeer.toString(), addr: bare(c.remoteAddr), direction: c.direction, limited: c.limits != null })
  })
  node.addEventListener('connection:close', ({ detail: c }) => {
    emit('disconnected', { peer: c.remotePeer.toString(), addr: bare(c.remoteAddr) })
  })
  await serve(node, ECHO, echoBack)
  await serve(node, HALF_CLOSE, async stream => {
    let count = 0
    for await (const data of stream) {
      count += data.byteLength
    }
    await send(stream, Buffer.from(String(count)))
  })
  await serve(node, RESET, async (stream) => {
    for await (const _ of stream) {
      break
    }
    stream.abort(new Error('this protocol resets')) // js-libp2p has no codes
  })
  await serve(node, PERF, async stream => {
    const header = []
    for await (const data of stream) {
      for (let i = 0; i < data.byteLength && header.length < 8; i++) {
        header.push(data.subarray()[i])
      }
    }
    await sendMany(stream, Number(Buffer.from(header).readBigUInt64BE()), () => new Uint8Array(CHUNK))
  })
  const found = isMdns ? watchDiscoveries(node, options.expect) : undefined
  await node.start()
  node.discovered = found
  emit('listening', { peer: node.peerId.toString(), addrs: node.getMultiaddrs().map(String) })
  return node
}

// serve registers a handler: when it returns the stream is closed, when it throws the stream is reset.
async function serve (node, protocol, handler) {
  await node.handle(protocol, async (stream) => {
    try {
      await handler(stream)
      await stream.close()
    } catch (err) {
      if (err.name === 'StreamResetError') {
        emit('aborted', { protocol })
      } else {
        console.error(`${protocol}:`, err)
      }
      stream.abort(err)
    }
  }, { maxInboundStreams: MAX_STREAMS })
}

async function echoBack (stream) {
  for await (const data of stream) {
    await send(stream, data)
  }
}

async function listen (node, ended) {
  const greeted = new Set()
  node.addEventListener('peer:identify', ({ detail }) => {
    emit('identify', describe(detail))
    const { connection } = detail
    // A push announces it after the connection's first identify.
    if (detail.protocols.includes(PUSHED) && !greeted.has(connection.id)) {
      greeted.add(connection.id)
      greet(connection).catch(err => { console.error('greet:', err) })
    }
  })
  await ended
}

async function greet (connection) {
  const stream = await connection.newStream(PUSHED)
  const end = answerOf(stream) // the remote ends the stream
  await send(stream, Buffer.from(PUSHED_GREETING))
  await end
  await stream.close()
}

async function dial (node, options) {
  if (options.peer === '') {
    throw new Error('--peer: want one address with /p2p')
  }
  // js-libp2p identifies by itself, and answers only one such stream of a peer at a time.
  const identified = new Promise(resolve => {
    node.addEventListener('peer:identify', ({ detail }) => { resolve(describe(detail)) }, { once: true })
  })
  const start = performance.now()
  const connection = await node.dial(multiaddr(options.peer))
  emit('dialed', {
    peer: connection.remotePeer.toString(),
    addr: bare(connection.remoteAddr),
    ms: since(start),
    limited: connection.limits != null,
    security: connection.encryption,
    muxer: connection.multiplexer
  })
  for (const name of options.do.split(',')) {
    const exchange = exchanges[name]
    if (exchange == null) {
      throw new Error(`--do=${name}: want some of ${Object.keys(exchanges)}`)
    }
    emit(name, await exchange({ node, connection, identified, options }))
  }
}

const open = (connection, protocol) => connection.newStream(protocol, { maxOutboundStreams: MAX_STREAMS })

// Each exchange returns the fields of its event.
const exchanges = {
  async identify ({ identified }) {
    return await identified
  },

  // Waits until the remote tells of another address than at first.
  async moved ({ node, identified }) {
    const before = (await identified).listen_addrs
    return await new Promise(resolve => {
      node.addEventListener('peer:identify', ({ detail }) => {
        const now = describe(detail)
        if (now.listen_addrs.some(addr => !before.includes(addr))) {
          resolve(now)
        }
      })
    })
  },

  async ping ({ node, connection }) {
    return { rtt_ms: await node.services.ping.ping(connection.remotePeer) }
  },

  async perf ({ connection, options }) {
    const stream = await open(connection, PERF)
    const start = performance.now()
    const header = Buffer.alloc(8)
    header.writeBigUInt64BE(BigInt(options.download))
    const answer = answerOf(stream)
    await send(stream, header)
    await sendMany(stream, options.bytes, () => new Uint8Array(CHUNK))
    await stream.close()
    const { bytes, firstAt } = await answer
    if (bytes !== options.download) {
      throw new Error(`downloaded ${bytes} bytes, wanted ${options.download}`)
    }
    return {
      upload_bytes: options.bytes,
      download_bytes: options.download,
      upload_ms: Number((firstAt - start).toFixed(3)),
      download_ms: since(firstAt)
    }
  },

  async echo ({ connection, options }) {
    const start = performance.now()
    await echo(connection, options.bytes)
    return { bytes: options.bytes, ms: since(start) }
  },

  async streams ({ connection, options }) {
    const start = performance.now()
    await Promise.all(Array.from({ length: options.streams }, () => echo(connection, options.bytes)))
    return { streams: options.streams, bytes: options.bytes, ms: since(start) }
  },

  async halfclose ({ connection, options }) {
    const start = performance.now()
    const stream = await open(connection, HALF_CLOSE)
    const answer = answerOf(stream)
    await sendMany(stream, options.bytes, randomBytes)
    await stream.close()
    const { text } = await answer
    if (text !== String(options.bytes)) {
      throw new Error(`sent ${options.bytes} bytes, answer is ${text}`)
    }
    return { bytes: options.bytes, ms: since(start) }
  },

  async reset ({ connection }) {
    const stream = await open(connection, RESET)
    const closed = new Promise(resolve => { stream.addEventListener('close', resolve, { once: true }) })
    await send(stream, Buffer.from([1]))
    const { error } = await closed
    if (error?.name !== 'StreamResetError') {
      throw new Error(`wanted a reset, stream closed with ${error}`)
    }
    return {}
  },

  async abort ({ connection }) {
    const stream = await open(connection, ECHO)
    await send(stream, Buffer.from('abort'))
    for await (const _ of stream) {
      break
    }
    stream.abort(new Error('abort'))
    return {}
  },

  async push ({ node }) {
    const start = performance.now()
    const greeting = await new Promise((resolve, reject) => {
      node.handle(PUSHED, async stream => {
        let text = ''
        for await (const data of stream) {
          text += Buffer.from(data.subarray()).toString()
          if (text.length >= PUSHED_GREETING.length) {
            break
          }
        }
        await stream.close()
        resolve(text)
      }).catch(reject)
    })
    if (greeting !== PUSHED_GREETING) {
      throw new Error(`greeting is ${greeting}, want ${PUSHED_GREETING}`)
    }
    return { protocol: PUSHED, ms: since(start) }
  }
}

async function echo (connection, size) {
  const stream = await open(connection, ECHO)
  const sent = createHash('sha256')
  const answer = answerOf(stream)
  await sendMany(stream, size, n => {
    const chunk = randomBytes(n)
    sent.update(chunk)
    return chunk
  })
  await stream.close()
  const { bytes, sha256 } = await answer
  if (bytes !== size || sha256 !== sent.digest('hex')) {
    throw new Error(`sent ${size} bytes, got ${bytes} back, or not the same ones`)
  }
}

// watchDiscoveries resolves with the expected number of peers. It listens before the node starts: a peer that is found meanwhile
// is told once.
function watchDiscoveries (node, expect) {
  const seen = new Set()
  return new Promise(resolve => {
    node.addEventListener('peer:discovery', ({ detail }) => {
      const peer = detail.id.toString()
      if (!seen.has(peer)) {
        seen.add(peer)
        emit('discovered', { peer, addrs: detail.multiaddrs.map(String) })
      }
      if (seen.size >= expect) {
        resolve()
      }
    })
  })
}

async function discover (node, options) {
  await node.discovered
  await new Promise(resolve => { setTimeout(resolve, options.linger * 1000) })
}

// answerOf collects what a stream says until its end; it begins before it is awaited, so nothing is missed.
async function answerOf (stream) {
  const hash = createHash('sha256')
  const maxText = 64 // our text answers are shorter
  let text = ''
  let bytes = 0
  let firstAt
  for await (const data of stream) {
    firstAt ??= performance.now()
    const chunk = data.subarray()
    hash.update(chunk)
    bytes += chunk.byteLength
    if (text.length < maxText) {
      text += Buffer.from(chunk.subarray(0, maxText)).toString()
    }
  }
  return { bytes, text, firstAt: firstAt ?? performance.now(), sha256: hash.digest('hex') }
}

async function sendMany (stream, size, chunk) {
  for (let left = size; left > 0;) {
    const n = Math.min(left, CHUNK)
    await send(stream, chunk(n).subarray(0, n))
    left -= n
  }
}

// send waits until the stream takes more: its own onDrain() waits only the first time.
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

function describe (found) {
  const key = found.publicKey == null ? found.peerId.publicKey : publicKeyFromProtobuf(found.publicKey)
  return {
    peer: found.peerId.toString(),
    agent: found.agentVersion ?? '',
    protocol_version: found.protocolVersion ?? '',
    protocols: found.protocols,
    listen_addrs: (found.signedPeerRecord?.addresses ?? found.listenAddrs).map(bare),
    observed: found.observedAddr?.toString() ?? '',
    signed_record: found.signedPeerRecord != null,
    key_type: key?.type.toLowerCase() ?? ''
  }
}

const bare = addr => addr.toString().replace(/\/p2p\/[^/]+$/, '')
const since = start => Number((performance.now() - start).toFixed(3))

function parse (args) {
  const text = value => ({ type: 'string', default: value })
  const { values: options } = parseArgs({
    args,
    options: {
      timeout: text('30'),
      listen: text('/ip4/127.0.0.1/tcp/0'),
      security: text(''),
      'key-type': text('ed25519'),
      peer: text(''),
      do: text('identify,ping'),
      bytes: text('1048576'),
      download: text('1048576'),
      streams: text('32'),
      service: text('_p2p._udp'),
      expect: text('1'),
      linger: text('2')
    }
  })
  for (const name of ['timeout', 'bytes', 'download', 'streams', 'expect', 'linger']) {
    options[name] = Number(options[name])
    if (!Number.isSafeInteger(options[name]) || options[name] < 0) {
      throw new Error(`--${name}: want a whole number`)
    }
  }
  if (!['', 'noise', 'tls'].includes(options.security)) {
    throw new Error(`--security=${options.security}: want noise, tls, or nothing for both`)
  }
  if (KEY_TYPES[options['key-type']] == null) {
    throw new Error(`--key-type=${options['key-type']}: want one of ${Object.keys(KEY_TYPES)}`)
  }
  return options
}

async function main ([mode, ...args]) {
  if (mode === 'capabilities') {
    emit('capabilities', {
      transports: ['tcp', 'ws', 'wss', 'quic-v1', 'webrtc-direct'], // wss: dials only
      security: ['noise', 'tls'],
      muxers: ['yamux'],
      key_types: Object.keys(KEY_TYPES),
      modes: [...MODES, 'capabilities']
    })
    return
  }
  if (!MODES.includes(mode)) {
    throw new Error(`no mode ${mode}: want one of ${MODES},capabilities`)
  }
  const options = parse(args)
  const ended = new Promise(resolve => {
    const timer = setTimeout(resolve, options.timeout * 1000, 'timeout')
    process.once('SIGTERM', () => {
      clearTimeout(timer)
      resolve('terminated')
    })
  })
  const node = await start(options, mode === 'mdns')
  if (mode === 'listen') {
    await listen(node, ended)
  } else {
    const run = mode === 'dial' ? dial(node, options) : discover(node, options)
    await Promise.race([run, ended.then(why => { throw new Error(`${mode}: ${why}`) })])
    emit('done')
  }
  await node.stop()
}

process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0' // the suite's certificates for secure WebSocket are self-signed
main(process.argv.slice(2)).then(() => process.exit(0), err => {
  console.error('jspeer:', err)
  process.exit(1)
})
