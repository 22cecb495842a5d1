//! The director keeps what the tables say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dpr_vectors::{DirectorExecutor, Table, describe_frame, frame_of, run};
use std::path::PathBuf;

fn tables() -> Vec<(PathBuf, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tables");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_vector_has_its_verdict_and_its_frames() {
    let bless = std::env::var_os("DPR_BLESS").is_some();
    let mut wrong = Vec::new();
    for (path, text) in tables() {
        let table = Table::parse(&text);
        let outcomes: Vec<_> = table
            .vectors
            .iter()
            .map(|vector| run(&table, vector, &mut DirectorExecutor::default()))
            .collect();
        for (vector, outcome) in table.vectors.iter().zip(&outcomes) {
            let expected = (vector.verdict.clone(), vector.out.clone());
            if expected != *outcome {
                wrong.push(format!(
                    "{}: {}\n  said {expected:#?}\n  is {outcome:#?}",
                    path.display(),
                    vector.name
                ));
            }
        }
        if bless {
            std::fs::write(path, table.with_outcomes(&outcomes)).unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_many_vectors_with_a_name_each_and_every_frame_that_leaves_is_sound() {
    let mut names = std::collections::BTreeSet::new();
    let mut words = std::collections::BTreeSet::new();
    for (path, text) in tables() {
        for vector in Table::parse(&text).vectors {
            assert!(names.insert(vector.name.clone()), "{}: {} is there twice", path.display(), vector.name);
            words.insert(vector.verdict.split(' ').take(2).collect::<Vec<_>>().join(" "));
            let came_damaged = vector.frame.contains("badsum");
            let leaves_sound = vector.out.iter().all(|out| !out.contains("BAD-"));
            assert!(came_damaged || leaves_sound, "{}: {}", path.display(), vector.name);
        }
    }
    assert!(names.len() >= 150, "{}", names.len());
    for verdict in
        ["pass", "forward Ipip", "forward Gue", "direct to", "answer arp", "answer neighbour", "answer echo"]
    {
        assert!(words.contains(verdict), "no vector ends as {verdict}: {words:?}");
    }
}

#[test]
fn a_line_becomes_a_frame_that_is_described_by_the_same_words() {
    let lines = [
        "ip 198.51.100.7 > 203.0.113.10 / tcp 1000 > 80 syn ack mss=1460 len=0",
        "vlan 5 / ip 2001:db8::1 > 2001:db8::2 ttl=3 / udp 1000 > 53 len=20",
        "ip 198.51.100.7 > 203.0.113.10 tos=3 id=9 / icmp 3.3 mtu=0 / quotes ip 203.0.113.10 > 198.51.100.7 / udp 53 > 1000 len=0",
    ];
    assert_eq!(describe_frame(&frame_of(lines[0])), lines[0]);
    assert_eq!(describe_frame(&frame_of(lines[1])), lines[1]);
    let written = "ip 198.51.100.7 > 203.0.113.10 tos=3 id=9 / unreachable / ip 203.0.113.10 > 198.51.100.7 / udp 53 > 1000";
    assert_eq!(describe_frame(&frame_of(written)), lines[2]);
    let damaged = describe_frame(&frame_of("ip 10.0.0.1 > 10.0.0.2 badhdr / tcp 1 > 2 badsum"));
    assert!(damaged.contains("BAD-HEADER") && damaged.contains("BAD-SUM"), "{damaged}");
}
