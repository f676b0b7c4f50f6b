//! The cipher of the `bip324` crate: seal and open one packet of each size, over and over.
//!
//! Prints one JSON object, payload size to million bytes a second (a packet sealed and
//! opened counts twice, as it passes the cipher twice).  The argument is the number of
//! seconds to spend on each size.

use bip324::{CipherSession, GarbageResult, Handshake, Network, PacketType, Role, VersionResult};
use std::time::{Duration, Instant};

/// Two sessions that have shaken hands in memory.
fn sessions() -> (CipherSession, CipherSession) {
    let (mut one_key, mut two_key) = ([0u8; 64], [0u8; 64]);
    let (mut one_version, mut two_version) = ([0u8; 36], [0u8; 36]);
    let start = |role| Handshake::new(Network::Bitcoin, role).expect("a key");
    let one = start(Role::Initiator).send_key(None, &mut one_key).expect("sent");
    let two = start(Role::Responder).send_key(None, &mut two_key).expect("sent");
    let one = one.receive_key(two_key).expect("received");
    let two = two.receive_key(one_key).expect("received");
    let one = one.send_version(&mut one_version, None).expect("sent");
    let two = two.send_version(&mut two_version, None).expect("sent");
    (finish(one, &mut two_version), finish(two, &mut one_version))
}

/// Read the other side's terminator and version packet.
fn finish(handshake: Handshake<bip324::SentVersion>, received: &mut [u8; 36]) -> CipherSession {
    let first = *received;
    let Ok(GarbageResult::FoundGarbage { mut handshake, consumed_bytes }) =
        handshake.receive_garbage(&first)
    else {
        panic!("no terminator");
    };
    let (length, packet) = received[consumed_bytes..].split_at_mut(3);
    let length: [u8; 3] = (&*length).try_into().expect("3 bytes");
    handshake.decrypt_packet_len(length).expect("a length");
    match handshake.receive_version(packet) {
        Ok(VersionResult::Complete { cipher }) => cipher,
        _ => panic!("no version packet"),
    }
}

fn throughput(size: usize, time: Duration) -> f64 {
    let (mut sender, mut receiver) = sessions();
    let contents = vec![0xa5u8; size];
    let mut packet = vec![0u8; size + 20];
    let mut packets = 0u64;
    let began = Instant::now();
    while began.elapsed() < time {
        for _ in 0..(1 + 100_000 / (size + 100)) {
            sender
                .outbound()
                .encrypt(&contents, &mut packet, PacketType::Genuine, None)
                .expect("sealed");
            let (length, rest) = packet.split_at_mut(3);
            let length: [u8; 3] = (&*length).try_into().expect("3 bytes");
            assert_eq!(receiver.inbound().decrypt_packet_len(length), rest.len());
            receiver.inbound().decrypt_in_place(rest, None).expect("opened");
            packets += 1;
        }
    }
    2.0 * packets as f64 * size as f64 / began.elapsed().as_secs_f64() / 1e6
}

fn main() {
    let seconds: f64 = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    let results: Vec<String> = [37usize, 1_000, 16_000, 1_000_000]
        .iter()
        .map(|size| format!("\"{size}\": {:.1}", throughput(*size, time)))
        .collect();
    println!("{{{}}}", results.join(", "));
}
