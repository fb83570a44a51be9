//! rust-libp2p behind the command line of Kith's interoperability suite: see ../README.md for modes, flags and events.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    io,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify, identity, mdns,
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle, dial_opts::DialOpts},
    tcp, tls, yamux,
};
use libp2p_stream::Control;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

type Failure = Box<dyn Error + Send + Sync>;

const ECHO: StreamProtocol = StreamProtocol::new("/kith-interop/echo/1");
const HALF_CLOSE: StreamProtocol = StreamProtocol::new("/kith-interop/halfclose/1");
const RESET: StreamProtocol = StreamProtocol::new("/kith-interop/reset/1");
const PUSHED: StreamProtocol = StreamProtocol::new("/kith-interop/pushed/1");
const PUSHED_GREETING: &[u8; 6] = b"pushed";
/// https://github.com/libp2p/specs/blob/master/perf/perf.md
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
const CHUNK: usize = 64 * 1024;

fn emit(event: &str, fields: Value) {
    let mut line = json!({ "event": event });
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    println!("{line}");
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// The flags, with the defaults that every peer has.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let defaults = [
            ("timeout", "30"),
            ("listen", "/ip4/127.0.0.1/tcp/0"),
            ("security", ""),
            ("key-type", "ed25519"),
            ("peer", ""),
            ("do", "identify,ping"),
            ("bytes", "1048576"),
            ("download", "1048576"),
            ("streams", "32"),
            ("service", "_p2p._udp"),
            ("expect", "1"),
            ("linger", "2"),
        ];
        let mut values: HashMap<_, _> =
            defaults.map(|(name, value)| (name.to_string(), value.to_string())).into();
        for arg in args {
            let (name, value) = arg
                .strip_prefix("--")
                .and_then(|flag| flag.split_once('='))
                .ok_or(format!("{arg}: flags are --name=value"))?;
            match values.get_mut(name) {
                Some(known) => *known = value.to_string(),
                None => return Err(format!("{arg}: no such flag").into()),
            }
        }
        Ok(Self(values))
    }

    fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    fn number(&self, name: &str) -> Result<u64, Failure> {
        self.text(name).parse().map_err(|_| format!("--{name}: want a whole number").into())
    }
}

#[tokio::main]
async fn main() {
    if let Err(err) = run().await {
        eprintln!("rustpeer: {err}");
        std::process::exit(1);
    }
    std::process::exit(0); // without waiting for what still runs
}

async fn run() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    if mode == "capabilities" {
        emit("capabilities", json!({
            "transports": ["tcp"], "security": ["noise", "tls"], "muxers": ["yamux"],
            "key_types": ["ed25519", "secp256k1", "ecdsa"], // rust-libp2p makes no RSA keys
            "modes": ["dial", "listen", "mdns", "capabilities"],
        }));
        return Ok(());
    }
    let options = Options::parse(args)?;
    let limit = Duration::from_secs(options.number("timeout")?);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut swarm = start(&options, mode == "mdns").await?;
    let work = async {
        match mode.as_str() {
            "listen" => listen(&mut swarm).await,
            "dial" => dial(&mut swarm, &options).await,
            "mdns" => discover(&mut swarm, &options).await,
            _ => Err(format!("no mode {mode:?}: want dial, listen, mdns or capabilities").into()),
        }
    };
    let ended = tokio::select! {
        result = timeout(limit, work) => result.unwrap_or_else(|_| Err("timeout".into())),
        _ = terminated.recv() => Err("terminated".into()),
    };
    match (mode.as_str(), ended) {
        ("listen", _) => Ok(()), // a server ends by being told to
        (_, Ok(())) => {
            emit("done", json!({}));
            Ok(())
        }
        (_, Err(err)) => Err(format!("{mode}: {err}").into()),
    }
}

/// Starts a swarm that speaks with nobody of its own accord, and waits until it listens.
async fn start(options: &Options, with_mdns: bool) -> Result<Swarm<Behaviour>, Failure> {
    let key = match options.text("key-type") {
        "ed25519" => identity::Keypair::generate_ed25519(),
        "secp256k1" => identity::Keypair::generate_secp256k1(),
        "ecdsa" => identity::Keypair::generate_ecdsa(),
        other => return Err(format!("--key-type={other}: want ed25519, secp256k1 or ecdsa").into()),
    };
    if with_mdns && options.text("service") != "_p2p._udp" {
        return Err("--service: rust-libp2p knows only _p2p._udp".into());
    }
    let builder = SwarmBuilder::with_existing_identity(key.clone()).with_tokio();
    let tcp = tcp::Config::default();
    let muxer = yamux::Config::default;
    // The three builders are of three types until they have a behaviour.
    macro_rules! finish {
        ($security:expr) => {
            builder
                .with_tcp(tcp, $security, muxer)?
                .with_behaviour(|key| behaviour(key, with_mdns))?
                .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
                .build()
        };
    }
    let mut swarm = match options.text("security") {
        "noise" => finish!(noise::Config::new),
        "tls" => finish!(tls::Config::new),
        "" => finish!((tls::Config::new, noise::Config::new)),
        other => return Err(format!("--security={other}: want noise, tls, or nothing for both").into()),
    };

    serve(&mut swarm, ECHO, echo_back)?;
    serve(&mut swarm, HALF_CLOSE, count)?;
    serve(&mut swarm, RESET, reset)?;
    serve(&mut swarm, PERF, serve_perf)?;
    let mut addrs = Vec::new();
    if options.text("listen") != "none" {
        for addr in options.text("listen").split(',') {
            swarm.listen_on(addr.parse()?)?;
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    addrs.push(format!("{address}/p2p/{}", swarm.local_peer_id()));
                    break;
                }
            }
        }
    }
    emit("listening", json!({ "peer": swarm.local_peer_id().to_string(), "addrs": addrs }));
    Ok(swarm)
}

fn behaviour(key: &identity::Keypair, with_mdns: bool) -> Result<Behaviour, Failure> {
    let about = identify::Config::new_with_signed_peer_record("ipfs/0.1.0".into(), key)
        .with_agent_version("rust-libp2p/rustpeer".into());
    let discovery = match with_mdns {
        true => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), key.public().to_peer_id())?),
        false => None,
    };
    Ok(Behaviour {
        identify: identify::Behaviour::new(about),
        ping: ping::Behaviour::default(),
        streams: libp2p_stream::Behaviour::new(),
        mdns: discovery.into(),
    })
}

/// Registers a handler: when it returns Ok the stream is closed, otherwise dropped, which resets it.
fn serve<F, H>(swarm: &mut Swarm<Behaviour>, protocol: StreamProtocol, handler: F) -> Result<(), Failure>
where
    F: Fn(Stream) -> H + Send + Sync + Copy + 'static,
    H: Future<Output = Result<(), io::Error>> + Send,
{
    let mut incoming = swarm.behaviour().streams.new_control().accept(protocol.clone())?;
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let protocol = protocol.clone();
            tokio::spawn(async move {
                if let Err(err) = handler(stream).await {
                    eprintln!("{protocol}: {err}");
                }
            });
        }
    });
    Ok(())
}

async fn echo_back(stream: Stream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    futures::io::copy(&mut reader, &mut writer).await?;
    writer.close().await
}

async fn count(mut stream: Stream) -> io::Result<()> {
    let n = futures::io::copy(&mut stream, &mut futures::io::sink()).await?;
    stream.write_all(n.to_string().as_bytes()).await?;
    stream.close().await
}

async fn reset(mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await?;
    drop(stream); // without having closed it: rust-yamux resets it, and has no codes
    Ok(())
}

async fn serve_perf(mut stream: Stream) -> io::Result<()> {
    let mut want = [0; 8];
    stream.read_exact(&mut want).await?;
    futures::io::copy(&mut stream, &mut futures::io::sink()).await?;
    write_zeros(&mut stream, u64::from_be_bytes(want)).await?;
    stream.close().await
}

/// What the swarm tells while it is driven.
enum News {
    Connected(Multiaddr),
    Identified(PeerId, identify::Info),
    Pinged(Duration),
    Discovered(Vec<(PeerId, Multiaddr)>),
    Failed(Failure),
}

/// Drives the swarm to its next piece of news.
async fn next(swarm: &mut Swarm<Behaviour>) -> News {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                let addr = bare(endpoint.get_remote_address());
                let direction = if endpoint.is_dialer() { "outbound" } else { "inbound" };
                emit("connected", json!({
                    "peer": peer_id.to_string(), "addr": addr.to_string(), "direction": direction, "limited": false,
                }));
                return News::Connected(addr);
            }
            SwarmEvent::ConnectionClosed { peer_id, endpoint, .. } => {
                let addr = bare(endpoint.get_remote_address());
                emit("disconnected", json!({ "peer": peer_id.to_string(), "addr": addr.to_string() }));
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return News::Failed(error.into()),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                return News::Identified(peer_id, info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error { error, .. })) => {
                eprintln!("identify: {error}");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) => match result {
                Ok(rtt) => return News::Pinged(rtt),
                Err(err) => eprintln!("ping: {err}"),
            },
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(peers))) => {
                return News::Discovered(peers);
            }
            _ => {}
        }
    }
}

async fn listen(swarm: &mut Swarm<Behaviour>) -> Result<(), Failure> {
    let mut greeted = HashSet::new();
    loop {
        if let News::Identified(peer, info) = next(swarm).await {
            let announced = info.protocols.contains(&PUSHED);
            emit("identify", describe(peer, info));
            if announced && greeted.insert(peer) {
                let control = swarm.behaviour().streams.new_control();
                tokio::spawn(async move {
                    if let Err(err) = greet(control, peer).await {
                        eprintln!("greet {peer}: {err}");
                    }
                });
            }
        }
    }
}

async fn greet(mut control: Control, peer: PeerId) -> Result<(), Failure> {
    let mut stream = control.open_stream(peer, PUSHED).await?;
    stream.write_all(PUSHED_GREETING).await?;
    stream.flush().await?;
    stream.read_to_end(&mut Vec::new()).await?; // the remote ends the stream
    Ok(stream.close().await?)
}

async fn dial(swarm: &mut Swarm<Behaviour>, options: &Options) -> Result<(), Failure> {
    let addr: Multiaddr = options.text("peer").parse()?;
    let Some(Protocol::P2p(peer)) = addr.iter().last() else {
        return Err("--peer: want one address with /p2p".into());
    };
    let start = Instant::now();
    swarm.dial(DialOpts::peer_id(peer).addresses(vec![addr]).build())?;
    let addr = loop {
        match next(swarm).await {
            News::Connected(addr) => break addr,
            News::Failed(err) => return Err(err),
            _ => {}
        }
    };
    // rust-libp2p does not tell what was negotiated: the only one that was offered, if it was one.
    let security = match options.text("security") {
        "noise" => "/noise",
        "tls" => "/tls/1.0.0",
        _ => "",
    };
    emit("dialed", json!({
        "peer": peer.to_string(), "addr": addr.to_string(), "ms": since(start), "limited": false,
        "security": security, "muxer": "/yamux/1.0.0",
    }));

    // The swarm moves only while it is driven, so the exchanges run beside it and get its news.
    let (identified, mut identify_news) = mpsc::unbounded_channel();
    let (pinged, mut ping_news) = mpsc::unbounded_channel();
    let control = swarm.behaviour().streams.new_control();
    let exchanges = async {
        for name in options.text("do").split(',') {
            let fields = match name {
                "identify" => identify_news.recv().await.ok_or("disconnected")?,
                "ping" => json!({ "rtt_ms": millis(ping_news.recv().await.ok_or("disconnected")?) }),
                _ => exchange(name, control.clone(), peer, options).await.map_err(|err| format!("{name}: {err}"))?,
            };
            emit(name, fields);
        }
        Ok(())
    };
    tokio::pin!(exchanges);
    loop {
        tokio::select! {
            result = &mut exchanges => return result,
            news = next(swarm) => match news {
                News::Identified(peer, info) => identified.send(describe(peer, info))?,
                News::Pinged(rtt) => pinged.send(rtt)?,
                _ => {}
            },
        }
    }
}

async fn exchange(name: &str, mut control: Control, peer: PeerId, options: &Options) -> Result<Value, Failure> {
    let bytes = options.number("bytes")?;
    let start = Instant::now();
    match name {
        "echo" => {
            echo(control, peer, bytes).await?;
            Ok(json!({ "bytes": bytes, "ms": since(start) }))
        }
        "streams" => {
            let streams = options.number("streams")?;
            let all = (0..streams).map(|_| echo(control.clone(), peer, bytes));
            futures::future::try_join_all(all).await?;
            Ok(json!({ "streams": streams, "bytes": bytes, "ms": since(start) }))
        }
        "halfclose" => {
            let mut stream = control.open_stream(peer, HALF_CLOSE).await?;
            write_random(&mut stream, bytes).await?;
            stream.close().await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            if answer != bytes.to_string() {
                return Err(format!("sent {bytes} bytes, answer is {answer:?}").into());
            }
            Ok(json!({ "bytes": bytes, "ms": since(start) }))
        }
        "reset" => {
            let mut stream = control.open_stream(peer, RESET).await?;
            stream.write_all(&[1]).await?;
            // To a reader, rust-yamux shows a reset as the end; only data would be wrong.
            match stream.read(&mut [0]).await {
                Ok(0) | Err(_) => Ok(json!({})),
                Ok(_) => Err("wanted a reset, got data".into()),
            }
        }
        "abort" => {
            let mut stream = control.open_stream(peer, ECHO).await?;
            stream.write_all(b"abort").await?;
            stream.read_exact(&mut [0; 5]).await?;
            drop(stream);
            Ok(json!({}))
        }
        "push" => {
            let mut incoming = control.accept(PUSHED)?;
            // A connection sees a new protocol, and pushes it, when it next has something to do.
            echo(control.clone(), peer, 1).await?;
            let (_, mut stream) = incoming.next().await.ok_or("no stream came in")?;
            let mut greeting = [0; PUSHED_GREETING.len()];
            stream.read_exact(&mut greeting).await?;
            if greeting != *PUSHED_GREETING {
                return Err(format!("greeting is {greeting:?}").into());
            }
            stream.close().await?;
            Ok(json!({ "protocol": PUSHED.to_string(), "ms": since(start) }))
        }
        "perf" => perf(control, peer, bytes, options.number("download")?).await,
        _ => Err("no such exchange".into()),
    }
}

async fn perf(mut control: Control, peer: PeerId, upload: u64, download: u64) -> Result<Value, Failure> {
    let mut stream = control.open_stream(peer, PERF).await?;
    let start = Instant::now();
    stream.write_all(&download.to_be_bytes()).await?;
    write_zeros(&mut stream, upload).await?;
    stream.close().await?;
    let mut buffer = vec![0; CHUNK];
    let mut got = 0;
    let mut uploaded = None;
    loop {
        let n = stream.read(&mut buffer).await?;
        uploaded.get_or_insert_with(Instant::now);
        got += n as u64;
        if n == 0 {
            break;
        }
    }
    if got != download {
        return Err(format!("downloaded {got} bytes, wanted {download}").into());
    }
    let uploaded = uploaded.unwrap_or(start);
    Ok(json!({
        "upload_bytes": upload, "download_bytes": download,
        "upload_ms": millis(uploaded - start), "download_ms": since(uploaded),
    }))
}

async fn echo(mut control: Control, peer: PeerId, size: u64) -> Result<(), Failure> {
    let (mut reader, mut writer) = control.open_stream(peer, ECHO).await?.split();
    let sending = async {
        let sent = write_random(&mut writer, size).await?;
        writer.close().await?;
        io::Result::Ok(sent)
    };
    let receiving = async {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut got = 0;
        loop {
            match reader.read(&mut buffer).await? {
                0 => return io::Result::Ok((got, hash.finalize())),
                n => {
                    hash.update(&buffer[..n]);
                    got += n as u64;
                }
            }
        }
    };
    let (sent, (got, received)) = futures::try_join!(sending, receiving)?;
    if got != size || received != sent {
        return Err(format!("sent {size} bytes, got {got} back, or not the same ones").into());
    }
    Ok(())
}

/// Writes bytes that no reordering survives unnoticed, a chain of hashes, and returns their hash.
async fn write_random<W: futures::AsyncWrite + Unpin>(writer: &mut W, size: u64) -> io::Result<sha2::digest::Output<Sha256>> {
    let mut hash = Sha256::new();
    let mut block = Sha256::digest(size.to_be_bytes());
    let mut chunk = vec![0; CHUNK];
    let mut left = size as usize;
    while left > 0 {
        let n = left.min(CHUNK);
        for part in chunk.chunks_mut(block.len()) {
            part.copy_from_slice(&block);
            let last = block.len() - 1;
            block[0] = block[0].wrapping_add(1);
            block[last] = block[last].wrapping_add(block[0]);
        }
        block = Sha256::digest(block);
        hash.update(&chunk[..n]);
        writer.write_all(&chunk[..n]).await?;
        left -= n;
    }
    Ok(hash.finalize())
}

async fn write_zeros(stream: &mut Stream, size: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let n = left.min(CHUNK as u64);
        stream.write_all(&zeros[..n as usize]).await?;
        left -= n;
    }
    Ok(())
}

async fn discover(swarm: &mut Swarm<Behaviour>, options: &Options) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    while (seen.len() as u64) < options.number("expect")? {
        if let News::Discovered(peers) = next(swarm).await {
            let mut addrs: HashMap<PeerId, Vec<String>> = HashMap::new();
            for (peer, addr) in peers {
                addrs.entry(peer).or_default().push(bare(&addr).to_string());
            }
            for (peer, addrs) in addrs {
                if seen.insert(peer) {
                    emit("discovered", json!({ "peer": peer.to_string(), "addrs": addrs }));
                }
            }
        }
    }
    let over = sleep(Duration::from_secs(options.number("linger")?));
    tokio::pin!(over);
    loop {
        tokio::select! {
            _ = &mut over => return Ok(()),
            _ = next(swarm) => {}
        }
    }
}

fn describe(peer: PeerId, info: identify::Info) -> Value {
    json!({
        "peer": peer.to_string(),
        "agent": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": info.protocols.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
        "listen_addrs": info.listen_addrs.iter().map(|a| bare(a).to_string()).collect::<Vec<_>>(),
        "observed": info.observed_addr.to_string(),
        "signed_record": info.signed_peer_record.is_some(),
        "key_type": info.public_key.key_type().to_string().to_lowercase(),
    })
}

/// An address without its last /p2p.
fn bare(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if let Some(Protocol::P2p(_)) = addr.iter().last() {
        addr.pop();
    }
    addr
}

fn since(start: Instant) -> f64 {
    millis(start.elapsed())
}

fn millis(d: Duration) -> f64 {
    d.as_micros() as f64 / 1000.0
}
