//! Two libp2p peers that ping each other through Tor.
//!
//!     cargo run -- listen [options of isoproxy publish]       # prints /onion3/…:4001/p2p/…
//!     cargo run -- dial MULTIADDR [ISOLATION-ID [PROXY]]      # prints a line for each ping

mod tor_transport;

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::upgrade::Version;
use libp2p::swarm::SwarmEvent;
use libp2p::{noise, ping, yamux, Multiaddr, Swarm, SwarmBuilder, Transport};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use tor_transport::TorTransport;

const PROXY: &str = "127.0.0.1:9250";
const PORT: u16 = 4001;
const PINGS: usize = 3;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("listen") => listen(&words[1..]).await,
        Some("dial") if words.len() > 1 => {
            let proxy = words.get(3).map_or(PROXY, String::as_str);
            dial(words[1].parse()?, words.get(2).cloned(), proxy).await
        }
        _ => Err("listen [OPTION]… | dial MULTIADDR [ISOLATION-ID [PROXY]]".into()),
    }
}

/// A peer with a fresh identity, Noise, and no transport but Tor's.
fn peer(isolation: Option<String>, proxy: &str) -> Outcome<Swarm<ping::Behaviour>> {
    let transport = TorTransport::new(proxy.parse()?, isolation);
    let pings = ping::Config::new().with_interval(Duration::from_millis(200));
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|key| {
            Ok(transport
                .upgrade(Version::V1Lazy)
                .authenticate(noise::Config::new(key)?)
                .multiplex(yamux::Config::default()))
        })?
        .with_behaviour(|_| ping::Behaviour::new(pings))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build())
}

/// Answer pings behind an onion service, until the service or we end.
async fn listen(options: &[String]) -> Outcome<()> {
    let mut swarm = peer(None, PROXY)?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let local = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let target = local.to_string().replace("/ip4/", "").replace("/tcp/", ":");
    let mut publish = Command::new("isoproxy")
        .args(["publish", &target, "--port", &PORT.to_string()])
        .args(options)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(publish.stdout.take().expect("it is piped")).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => {
                    let multiaddr = line.split_whitespace().nth(1).ok_or("no multiaddr")?;
                    println!("{multiaddr}/p2p/{}", swarm.local_peer_id());
                }
                None => return Err("isoproxy publish ended".into()),
            },
            _ = swarm.select_next_some() => {}
        }
    }
}

/// Ping a peer, which must be the one that its multiaddr names.
async fn dial(address: Multiaddr, isolation: Option<String>, proxy: &str) -> Outcome<()> {
    let mut swarm = peer(isolation, proxy)?;
    swarm.dial(address)?;
    let mut count = 0;
    while count < PINGS {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(ping::Event {
                result: Ok(time), ..
            }) => {
                println!("ping {} ms", time.as_millis());
                count += 1;
            }
            SwarmEvent::Behaviour(ping::Event {
                result: Err(error), ..
            }) => return Err(error.into()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
