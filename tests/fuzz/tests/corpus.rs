//! Every input that fuzzing has found, once more; so that what was mended stays mended.

use std::path::Path;

/// Calls a target's rule with each of its inputs, of which there are at least some.
fn replay(target: &str, rule: fn(&[u8])) {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target);
    let mut replayed = 0;
    for entry in corpus.read_dir().expect("the corpus is committed") {
        let file = entry.expect("the corpus can be listed").path();
        println!("{}", file.display());
        rule(&std::fs::read(&file).expect("an input can be read"));
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} inputs in {}", corpus.display());
}

#[test]
fn no_frame_does_harm_and_every_edit_leaves_whole_packets() {
    replay("frame", dpr_fuzz_rules::frame);
}

#[test]
fn what_goes_into_tunnels_comes_out_of_them() {
    replay("tunnel", dpr_fuzz_rules::tunnel);
}

#[test]
fn no_datagram_harms_gossip() {
    replay("gossip", dpr_fuzz_rules::gossip);
}

#[test]
fn the_pipeline_does_what_the_naive_model_says() {
    replay("pipeline", dpr_fuzz_rules::pipeline);
}

#[test]
fn no_message_harms_copies_of_connections() {
    replay("sync", dpr_fuzz_rules::sync);
}

#[test]
fn no_map_and_no_message_harms_agreement() {
    replay("ownership", dpr_fuzz_rules::ownership);
}
