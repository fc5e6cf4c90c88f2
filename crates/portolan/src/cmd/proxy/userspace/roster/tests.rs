//! Which of several relays carries on, with threads in the place of processes.

use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Says hello, and tells what it is asked.
fn relay(roster: &Roster, program: &str, drains: bool) -> Receiver<Ask> {
    let (_, listener) = roster.listen().unwrap();
    let hello = Tell::Hello(Hello {
        protocol: PROTOCOL,
        program: program.into(),
        drains,
    });
    let (asked_in, asked) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        fdpass::send(&mut stream, &serde_json::to_vec(&hello).unwrap(), &[]).unwrap();
        while let Ok(Some((bytes, _))) = fdpass::receive(&mut stream) {
            asked_in
                .send(serde_json::from_slice(&bytes).unwrap())
                .unwrap();
        }
    });
    asked
}

fn roster(dir: &Path) -> Roster {
    let roster = Roster::here(&dir.join("state"), Kind::Portal).unwrap();
    roster.make_dir().unwrap();
    roster
}

#[test]
fn our_own_carries_on_and_others_retire() {
    let dir = tempfile::tempdir().unwrap();
    let roster = roster(dir.path());
    let other = relay(&roster, "another program", false);
    let ours = relay(&roster, &crate::cmd::relay::program(), false);
    let former = relay(&roster, &crate::cmd::relay::program(), true);
    let found = roster.find().unwrap().unwrap();
    assert!(found.is_ours() && !found.hello.drains);
    drop(found);
    assert_eq!(other.iter().collect::<Vec<_>>(), [Ask::Retire]);
    assert_eq!(ours.iter().collect::<Vec<_>>(), []);
    assert_eq!(former.iter().collect::<Vec<_>>(), []);
    // All three have hung up by now, and their files are of no use.
    assert!(roster.find().unwrap().is_none());
    assert_eq!(std::fs::read_dir(&roster.dir).unwrap().count(), 0);
}

#[test]
fn no_more_than_so_many_drain() {
    let dir = tempfile::tempdir().unwrap();
    let roster = roster(dir.path());
    let all: Vec<_> = (0..=DRAINING_MAX)
        .map(|_| relay(&roster, "another program", true))
        .collect();
    assert!(roster.find().unwrap().is_none());
    let ended = all.into_iter().filter(|asked| asked.iter().eq([Ask::End]));
    // With the one that is about to start there are as many as may be.
    assert_eq!(ended.count(), 2);
}

#[test]
fn nobody_else_may_talk_to_relays() {
    let dir = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    let path = dir.path().join("state");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, open).unwrap();
    roster(dir.path());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let file = Roster::here(Path::new("/proc/self/exe/state"), Kind::Portal).unwrap();
    let error = file.make_dir().unwrap_err().to_string();
    assert!(error.contains("--state-dir"), "{error}");
}
