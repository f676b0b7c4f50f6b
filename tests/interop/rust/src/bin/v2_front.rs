//! A v2 peer on regtest: the responder of the crate bip324 in front of a v1 node.
//!
//!     v2_front LISTEN NODE
//!
//! Prints `session ID` for each client whose version packet was authentic.  Handshake, ciphers
//! and message types are the crate's; garbage and decoys are sent before its version packet.

use std::error::Error;
use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use bip324::serde::{deserialize, serialize};
use bip324::{
    CipherSession, GarbageResult, Handshake, InboundCipher, Initialized, Network, OutboundCipher,
    PacketType, ReceivedKey, Role, VersionResult, NUM_HEADER_BYTES, NUM_LENGTH_BYTES,
};
use bitcoin::consensus::{Decodable, Encodable};
use bitcoin::p2p::message::RawNetworkMessage;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const GARBAGE: Option<&[u8]> = Some(&[7; 1000]);
const DECOYS: Option<&[&[u8]]> = Some(&[b"", &[7; 1000]]);

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || arguments.next().ok_or("usage: v2_front LISTEN NODE");
    let (listen, node) = (address()?, address()?);
    let listener = TcpListener::bind(listen)?;
    println!("listening");
    for client in listener.incoming() {
        let (client, node) = (client?, TcpStream::connect(&node)?);
        thread::spawn(move || println!("ended: {:?}", serve(client, node)));
    }
    Ok(())
}

fn serve(client: TcpStream, node: TcpStream) -> Outcome<()> {
    let (session, from_client) = shake(client.try_clone()?)?;
    let id: String = session
        .id()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("session {id}");
    let (inbound, outbound) = session.into_split();
    let to_node = node.try_clone()?;
    let inward = thread::spawn(move || {
        let ended = to_v1(from_client, inbound, &to_node);
        to_node.shutdown(Shutdown::Both)?;
        ended
    });
    let ended = to_v2(&node, outbound, &client);
    client.shutdown(Shutdown::Both)?;
    inward.join().expect("no panic").and(ended)
}

/// The responder's side of the handshake; what follows it is read from the reader given back.
fn shake(mut client: TcpStream) -> Outcome<(CipherSession, impl Read)> {
    let key = exactly(&mut client)?;
    let mut output = vec![0; Handshake::<Initialized>::send_key_len(GARBAGE)];
    let handshake = Handshake::new(Network::Regtest, Role::Responder)?;
    let handshake = handshake.send_key(GARBAGE, &mut output)?.receive_key(key)?;
    client.write_all(&output)?;
    output = vec![0; Handshake::<ReceivedKey>::send_version_len(DECOYS)];
    let mut handshake = handshake.send_version(&mut output, DECOYS)?;
    client.write_all(&output)?;
    let mut input = Vec::new();
    let (mut handshake, consumed) = loop {
        let mut more = [0; 4096];
        let count = client.read(&mut more)?;
        if count == 0 {
            return Err("closed in the handshake".into());
        }
        input.extend_from_slice(&more[..count]);
        match handshake.receive_garbage(&input)? {
            GarbageResult::FoundGarbage {
                handshake,
                consumed_bytes,
            } => {
                break (handshake, consumed_bytes);
            }
            GarbageResult::NeedMoreData(before) => handshake = before,
        }
    };
    let mut reader = Cursor::new(input[consumed..].to_vec()).chain(client);
    loop {
        let mut packet = vec![0; handshake.decrypt_packet_len(exactly(&mut reader)?)?];
        reader.read_exact(&mut packet)?;
        match handshake.receive_version(&mut packet)? {
            VersionResult::Complete { cipher } => return Ok((cipher, reader)),
            VersionResult::Decoy(before) => handshake = before,
        }
    }
}

/// Pass the client's messages on until one side closes or breaks the rules.
fn to_v1(mut client: impl Read, mut cipher: InboundCipher, mut node: &TcpStream) -> Outcome<()> {
    loop {
        let length: [u8; NUM_LENGTH_BYTES] = exactly(&mut client)?;
        let mut packet = vec![0; cipher.decrypt_packet_len(length)];
        client.read_exact(&mut packet)?;
        let (kind, plain) = cipher.decrypt_in_place(&mut packet, None)?;
        if kind == PacketType::Genuine {
            let message = deserialize(&plain[NUM_HEADER_BYTES..])?;
            let mut output = Vec::new();
            RawNetworkMessage::new(Network::Regtest.magic(), message)
                .consensus_encode(&mut output)?;
            node.write_all(&output)?;
        }
    }
}

/// Pass the node's messages on until one side closes.
fn to_v2(mut node: &TcpStream, mut cipher: OutboundCipher, mut client: &TcpStream) -> Outcome<()> {
    loop {
        let message = RawNetworkMessage::consensus_decode(&mut node)?.into_payload();
        let packet = cipher.encrypt_to_vec(&serialize(message), PacketType::Genuine, None);
        client.write_all(&packet)?;
    }
}

fn exactly<const N: usize>(reader: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}
