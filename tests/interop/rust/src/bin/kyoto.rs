//! A light client (BIP157) of one peer on regtest.
//!
//!     kyoto PEER v1|v2 [PROXY]
//!
//! Through a SOCKS5 proxy it speaks v1 whatever it is told.  Prints `height N` when it has
//! checked the filters of N blocks, and then `block HASH` when it has fetched the last of them.

use std::net::SocketAddr;
use std::time::Duration;

use bip157::{tokio, Builder, Client, Event, Network, ServiceFlags, TrustedPeer};

const ATTEMPTS: usize = 10; // it tries each peer that it was given once
const TIMEOUT: Duration = Duration::from_secs(60); // its own 2 s are short for a new circuit

#[tokio::main(crate = "bip157::tokio")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = |text: &String| -> SocketAddr { text.parse().unwrap() };
    let mut peer = TrustedPeer::from_socket_addr(address(&arguments[0]));
    if arguments[1] == "v2" {
        peer.set_services(ServiceFlags::P2P_V2);
    }
    let mut builder = Builder::new(Network::Regtest)
        .add_peers(vec![peer; ATTEMPTS])
        .whitelist_only()
        .handshake_timeout(TIMEOUT)
        .response_timeout(TIMEOUT);
    if let Some(proxy) = arguments.get(2) {
        builder = builder.socks5_proxy(address(proxy));
    }
    let (node, client) = builder.build();
    let Client {
        requester,
        mut event_rx,
        mut warn_rx,
        ..
    } = client;
    tokio::spawn(async move {
        while let Some(warning) = warn_rx.recv().await {
            println!("{warning}");
        }
    });
    tokio::spawn(async move {
        while let Some(event) = event_rx.recv().await {
            if let Event::FiltersSynced(update) = event {
                println!("height {}", update.tip.height);
                let fetched = requester.get_block(update.tip.hash).await.unwrap();
                println!("block {}", fetched.block.block_hash());
            }
        }
    });
    println!("ended: {:?}", node.run().await);
}
