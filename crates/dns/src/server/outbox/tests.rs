//! Which letters go together, and that each arrives.

use std::time::Duration;

use super::*;

/// Nobody waits longer than this for a datagram.
const PATIENCE: Duration = Duration::from_secs(20);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn outbox(bound: &str, letters: &[(SocketAddr, usize)]) -> Outbox {
    let mut outbox = Outbox::new(BATCH_MAX, bound.parse().unwrap());
    for (number, (to, length)) in letters.iter().enumerate() {
        let local = at(0).ip();
        outbox.next(*to, local).resize(*length, number as u8);
        outbox.keep();
    }
    outbox
}

/// Port and lengths of the cars of each train, in the order of the calls.
fn trains(letters: &[(u16, usize)]) -> Vec<(u16, Vec<usize>)> {
    let letters: Vec<_> = letters
        .iter()
        .map(|(port, length)| (at(*port), *length))
        .collect();
    let mut outbox = outbox("127.0.0.1:0", &letters);
    outbox.arrange();
    let all = outbox.trains.iter().map(|train| {
        let letters = (train.begin..train.end).map(|place| outbox.letter(place));
        let port = outbox.letter(train.begin).to.port();
        let lengths: Vec<usize> = letters.map(|letter| letter.bytes.len()).collect();
        let car = if lengths.len() > 1 { lengths[0] } else { 0 };
        assert_eq!(
            usize::from(train.car),
            car,
            "{letters:?}",
            letters = lengths
        );
        (port, lengths)
    });
    all.collect()
}

#[test]
fn letters_to_one_client_are_one_train() {
    assert_eq!(trains(&[]), []);
    assert_eq!(trains(&[(1, 50)]), [(1, vec![50])]);
    // The last may be shorter, and is for nobody else.
    let mixed = [(1, 60), (2, 50), (1, 50), (3, 40), (1, 60), (2, 50)];
    let expected = [(3, vec![40]), (2, vec![50, 50]), (1, vec![60, 60, 50])];
    assert_eq!(trains(&mixed), expected);
    // Nothing follows a shorter one.
    let shorter = [(1, 60), (1, 50), (1, 50), (1, 40)];
    assert_eq!(trains(&shorter), [(1, vec![50, 40]), (1, vec![60, 50])]);
    let empty = [(1, 0), (1, 0), (1, 9)];
    assert_eq!(trains(&empty), [(1, vec![9]), (1, vec![0]), (1, vec![0])]);
}

#[test]
fn trains_have_limits() {
    let long = CAR_BYTES_MAX + 1;
    assert_eq!(
        trains(&[(1, long), (1, long)]),
        [(1, vec![long]), (1, vec![long])]
    );
    let full = vec![(1, CAR_BYTES_MAX); BATCH_MAX];
    let lengths: Vec<usize> = trains(&full).iter().map(|(_, cars)| cars.len()).collect();
    let most = TRAIN_BYTES_MAX / CAR_BYTES_MAX;
    assert_eq!(lengths, [most, BATCH_MAX - most]);
    assert_eq!(
        trains(&vec![(1, 90); BATCH_MAX]),
        [(1, vec![90; BATCH_MAX])]
    );
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// First byte and length of so many datagrams that come, sorted.
fn received(socket: &UdpSocket, count: usize) -> Vec<(u8, usize)> {
    let mut buffer = [0; 70_000];
    let mut all: Vec<_> = (0..count)
        .map(|_| {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from.ip(), at(0).ip());
            (buffer[0], length)
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn everybody_gets_every_letter() {
    for bound in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = UdpSocket::bind(bound).unwrap();
        let [one, two] = [client(), client()];
        let [to_one, to_two] = [&one, &two].map(|socket| socket.local_addr().unwrap());
        let letters = [
            (to_one, 60),
            (to_two, 50),
            (to_one, 60),
            (to_one, 40),
            (to_two, 2000),
        ];
        let mut outbox = outbox(bound, &letters);
        let sent = outbox.send(&server);
        let (answers, packets) = (letters.len(), 3);
        assert_eq!(sent, Sent { answers, packets });
        assert_eq!(received(&one, 3), [(0, 60), (2, 60), (3, 40)], "{bound}");
        assert_eq!(received(&two, 2), [(1, 50), (4, 2000)], "{bound}");
        assert_eq!(outbox.used, 0);
    }
}

/// One datagram cannot be cut into so many cars, so the kernel refuses the train.
#[test]
fn letters_of_a_refused_train_go_one_by_one() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client();
    let to = client.local_addr().unwrap();
    let mut outbox = outbox("127.0.0.1:0", &[(to, 900), (to, 900), (to, 800)]);
    outbox.arrange();
    assert_eq!(outbox.trains.len(), 1);
    outbox.trains[0].car = 1;
    outbox.dispatch(&server);
    assert_eq!(received(&client, 3), [(0, 900), (1, 900), (2, 800)]);
}
