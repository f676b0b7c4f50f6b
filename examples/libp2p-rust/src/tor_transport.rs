//! A libp2p transport that dials through isoproxy and listens on loopback alone.
//!
//! libp2p opens connections and listeners through transports. This one stands in place of all
//! others: what it dials goes through isoproxy under one isolation ID, and what it listens on is
//! the local end of an onion service. Nothing is resolved here, and nothing is dialled directly:
//! what cannot go through Tor (UDP, QUIC, WebSocket) is refused.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::TryFutureExt;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{tcp, Multiaddr, PeerId, Transport};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// The password that goes with every isolation ID: the user name alone tells streams apart.
const PASSWORD: &str = "isoproxy";

type Stream = Compat<TcpStream>;
type Opening = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

pub struct TorTransport {
    proxy: SocketAddr,
    isolation: Option<String>,
    local: tcp::tokio::Transport,
}

impl TorTransport {
    /// Dials through the isoproxy at `proxy`, under `isolation`; `None`: no two share.
    pub fn new(proxy: SocketAddr, isolation: Option<String>) -> Self {
        let local = tcp::tokio::Transport::new(tcp::Config::default());
        Self {
            proxy,
            isolation,
            local,
        }
    }
}

impl Transport for TorTransport {
    type Output = Stream;
    type Error = io::Error;
    type ListenerUpgrade = Opening;
    type Dial = Opening;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        match address.iter().next() {
            Some(Protocol::Ip4(host)) if host.is_loopback() => self.local.listen_on(id, address),
            Some(Protocol::Ip6(host)) if host.is_loopback() => self.local.listen_on(id, address),
            _ => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.local.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Opening, TransportError<io::Error>> {
        let Some((host, port)) = destination(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let proxy = self.proxy;
        let user = self
            .isolation
            .clone()
            .unwrap_or_else(|| PeerId::random().to_string());
        Ok(Box::pin(async move {
            let target = (host.as_str(), port);
            let stream = Socks5Stream::connect_with_password(proxy, target, &user, PASSWORD)
                .await
                .map_err(io::Error::other)?;
            Ok(stream.into_inner().compat())
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Opening, io::Error>> {
        Pin::new(&mut self.local).poll(context).map(|event| {
            event.map_upgrade(|upgrade| {
                let opening: Opening =
                    Box::pin(upgrade.map_ok(|stream| TcpStream::from(stream).compat()));
                opening
            })
        })
    }
}

/// Where a multiaddr leads, if Tor can go there: `/onion3`, or `/dns`, `/ip` with `/tcp`.
fn destination(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let found = match parts.next()? {
        Protocol::Onion3(onion) => {
            let text = Protocol::Onion3(onion).to_string();
            let (name, port) = text.strip_prefix("/onion3/")?.rsplit_once(':')?;
            (format!("{name}.onion"), port.parse().ok()?)
        }
        host => {
            let host = match host {
                Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
                    name.to_string()
                }
                Protocol::Ip4(host) => host.to_string(),
                Protocol::Ip6(host) => host.to_string(),
                _ => return None,
            };
            match parts.next()? {
                Protocol::Tcp(port) => (host, port),
                _ => return None,
            }
        }
    };
    match parts.next() {
        None | Some(Protocol::P2p(_)) => Some(found),
        _ => None,
    }
}
