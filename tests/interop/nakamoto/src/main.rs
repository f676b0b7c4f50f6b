//! A light client (BIP157) of one peer on regtest, which knows no proxy.
//!
//!     nakamoto FOLDER PEER
//!
//! Prints the height it knows.

use std::net::TcpStream;
use std::{thread, time::Duration};

use nakamoto_client::handle::Handle as _;
use nakamoto_client::{Client, Config, Domain, Network};

type Reactor = nakamoto_net_poll::Reactor<TcpStream>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut config = Config::new(Network::Regtest);
    config.root = arguments[0].clone().into();
    config.connect = vec![arguments[1].parse().unwrap()];
    config.domains = vec![Domain::IPV4];
    config.listen = vec![];
    let client = Client::<Reactor>::new().unwrap();
    let handle = client.handle();
    thread::spawn(move || println!("ended: {:?}", client.run(config)));
    loop {
        if let Ok((height, _)) = handle.get_tip() {
            println!("height {height}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}
