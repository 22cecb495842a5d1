//! What backups know, and what that costs.

use crate::link::{Link, SERVER, enter, flow, record};
use dpr_conntrack::sync::{ANNOUNCED_AFTER, Message, Record, RecordState, Replica, Stream, Young, answer};
use dpr_conntrack::{Config, Segment, Table};
use dpr_model::{NodeId, Timestamp};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const PLENTY: u64 = 100_000_000;

#[test]
fn a_backup_knows_what_began_and_what_ended() {
    let mut link = Link::new(PLENTY);
    (0..500).for_each(|number| link.establish(number, number));
    link.run_for(SECOND);
    (0..250).for_each(|number| link.close(number, number));

    link.run_for(SECOND);

    assert!(link.agree_about(0..500));
    assert_eq!(link.backup.get(&flow(300)).unwrap().real_server, SERVER);
    assert_eq!(link.stream.behind(link.now).batches, 0);
}

#[test]
fn what_a_lossy_network_loses_is_sent_again() {
    let mut link = Link::new(PLENTY);
    (link.loss_permille, link.delay_max_ms) = (300, 200);
    for number in 0..5000 {
        link.establish(number, number);
        if number % 3 == 0 {
            link.close(number, number);
        }
        if number % 50 == 0 {
            link.run_for(Duration::from_millis(20));
        }
    }

    link.run_for(10 * SECOND);

    assert!(link.agree_about(0..5000));
    assert!(link.replica.is_whole());
    assert_eq!((link.replica.missed(), link.stream.behind(link.now).batches), (0, 0));
}

#[test]
fn what_was_overtaken_is_sent_again_at_once() {
    let mut link = Link::new(PLENTY);
    link.run_for(SECOND);
    link.establish(1, 1);
    let Message::Batch { sequence: lost, .. } = link.next_message() else { panic!("no batch") };
    link.establish(2, 2);
    link.next_message();
    assert_eq!(link.stream.poll(|_, _| None, link.now), None, "it may arrive yet");

    link.stream.handle_ack(lost, 1, false);

    let again = link.stream.poll(|_, _| None, link.now).map(|bytes| Message::from_bytes(&bytes));
    assert!(matches!(again, Some(Ok(Message::Batch { sequence, .. })) if sequence == lost));
}

#[test]
fn a_backup_that_begins_anew_gets_what_it_had_got_out_of_order() {
    let mut link = Link::new(PLENTY);
    link.run_for(SECOND);
    link.establish(1, 1);
    let Message::Batch { sequence: lost, .. } = link.next_message() else { panic!("no batch") };
    link.establish(2, 2);
    let Message::Batch { sequence: had, .. } = link.next_message() else { panic!("no batch") };
    assert_eq!(had, lost + 1);
    link.stream.handle_ack(lost, 1, false);
    link.replica = Replica::new();

    link.run_for(SECOND);

    assert!(link.agree_about(1..3));
    assert_eq!(link.stream.behind(link.now).batches, 0);
}

#[test]
fn a_late_closing_does_not_end_a_later_connection_of_the_same_sockets() {
    let mut link = Link::new(PLENTY);
    // The first snapshot is over, or it would mend everything.
    link.run_for(SECOND);
    link.establish(1, 100);
    link.establish(1, 200);
    link.close(1, 100);

    link.run_for(SECOND);

    assert_eq!(link.backup.get(&flow(1)).unwrap().generation, 200);
}

#[test]
fn a_backup_that_joins_gets_everything_and_says_when_it_has_it() {
    let mut link = Link::new(PLENTY);
    (0..20_000).for_each(|number| link.insert(number, number));
    assert!(!link.replica.is_whole());

    link.run_for(2 * SECOND);

    assert!(link.replica.is_whole());
    assert!(link.agree_about(0..20_000));
}

#[test]
fn a_backup_that_joins_gets_no_copy_of_what_clients_have_ended() {
    let mut link = Link::new(PLENTY);
    let ended =
        [Segment { fin: true, ..Segment::going_on(1) }, Segment { rst: true, ..Segment::going_on(2) }];
    for (number, segment) in (1..).zip(ended) {
        link.insert(number, number);
        link.director.observe(&flow(number), segment, link.now);
    }
    link.insert(3, 3);

    link.run_for(2 * SECOND);

    assert!(link.replica.is_whole());
    let known = [1, 2, 3].map(|number| link.backup.get(&flow(number)).is_some());
    assert_eq!(known, [false, false, true], "their sockets may be used again before such a copy expires");
}

#[test]
fn a_later_stream_of_the_same_director_is_taken_for_what_it_is() {
    let mut link = Link::new(PLENTY);
    (0..100).for_each(|number| link.establish(number, number));
    link.run_for(SECOND);
    (100..200).for_each(|number| link.insert(number, number));

    link.stream = Stream::new(PLENTY, link.stream.end(), link.now);
    link.establish(200, 200);
    link.run_for(SECOND);

    assert!(link.agree_about(0..201));
    assert!(link.replica.is_whole());
}

#[test]
fn who_becomes_backup_of_more_slots_gets_what_was_there_before() {
    let mut link = Link::new(PLENTY);
    link.run_for(SECOND);
    (0..100).for_each(|number| link.insert(number, number));

    link.stream.copy_anew();
    link.run_for(SECOND);

    assert!(link.agree_about(0..100));
}

#[test]
fn a_stream_that_cannot_keep_up_says_so_and_catches_up_by_a_snapshot() {
    let mut link = Link::new(200_000);
    link.run_for(SECOND);
    for number in 0..100_000 {
        link.establish(number, number);
    }
    link.run_for(Duration::from_millis(100));
    let behind = link.stream.behind(link.now);
    assert!(behind.given_up > 0 && behind.batches > 900, "{behind:?}");
    assert!(!link.replica.is_whole());

    link.run_for(40 * SECOND);

    assert!(link.replica.is_whole());
    assert!(link.agree_about(0..100_000));
}

#[test]
fn a_snapshot_of_which_a_part_is_missing_makes_no_copy_whole() {
    let mut link = Link::new(PLENTY);
    let mut hear = |sequence, oldest, snapshot_began| {
        let batch = Message::Batch { sequence, oldest, snapshot_began, records: vec![] };
        link.replica.handle(batch, |copied| enter(&mut link.backup, copied, link.now), link.now);
        link.replica.is_whole()
    };

    assert!(!hear(1, 1, Some(0)), "the first batch of it never came");
    assert!(hear(3, 1, Some(2)) | hear(2, 1, None), "this one is complete");
    assert!(!hear(5, 5, None), "and after a gap the copy is not whole any more");
}

#[test]
fn bandwidth_stays_within_its_bound() {
    let mut link = Link::new(200_000);
    (0..100_000).for_each(|number| link.establish(number, number));

    link.run_for(5 * SECOND);

    assert!((900_000..=1_010_000).contains(&link.sent_bytes), "{} bytes in 5 s", link.sent_bytes);
}

#[test]
fn a_connection_costs_less_than_24_bytes_over_ipv4() {
    let mut link = Link::new(PLENTY);
    link.run_for(SECOND);
    let before = link.sent_bytes;
    (0..10_000).for_each(|number| link.establish(number, number));
    link.run_for(SECOND);

    assert!(link.agree_about(0..10_000));
    assert!(link.sent_bytes - before < 24 * 10_000, "{} bytes", link.sent_bytes - before);
}

#[test]
fn copies_of_long_connections_do_not_expire() {
    let mut link = Link::new(PLENTY);
    link.establish(1, 1);
    for _ in 0..40 {
        link.run_for(30 * SECOND);
        let ack = Segment { ack: true, sequence: 2, ..Segment::default() };
        link.director.observe(&flow(1), ack, link.now);
        link.backup.expire(link.now, 1000);
    }

    assert!(link.backup.get(&flow(1)).is_some(), "twenty minutes later");
}

#[test]
fn only_connections_that_last_are_announced() {
    let now = Timestamp::from_millis(1000);
    let mut table = Table::new(Config { capacity: 16, ..Config::with_seed([1, 2]) });
    let mut young = Young::new(3);
    let ack = |number: u32| Segment { ack: true, sequence: number + 1, ..Segment::default() };
    for number in 0..4 {
        table.insert(&flow(number), ack(number), SERVER, now).unwrap();
        young.add(flow(number), number, now);
    }
    table.close(&flow(0), 0, now);
    table.insert(&flow(1), ack(77), SERVER, now).unwrap();

    assert_eq!(young.poll(&table, now + ANNOUNCED_AFTER / 2), None);
    assert_eq!(young.poll(&table, now + ANNOUNCED_AFTER), Some(record(2, RecordState::Established)));
    assert_eq!((young.poll(&table, now + ANNOUNCED_AFTER), young.poll_timeout()), (None, None));
    assert_eq!(young.overlooked(), 1);
}

#[test]
fn who_asks_is_told_what_is_known() {
    let mut link = Link::new(PLENTY);
    link.establish(1, 7);

    let known = Record { generation: 7, ..record(1, RecordState::Established) };
    assert_eq!(answer(&link.director, &flow(1)), Some(known));
    assert_eq!(answer(&link.director, &flow(2)), None);
    link.close(1, 7);
    assert_eq!(answer(&link.director, &flow(1)), None, "nobody needs what is over");
}

#[test]
fn what_an_owner_has_seen_for_itself_stands() {
    let mut link = Link::new(PLENTY);
    link.insert(1, 200);
    let old = Record { generation: 100, real_server: NodeId(5), ..record(1, RecordState::Established) };

    assert!(old.apply(&mut link.director, true, link.now));
    assert_eq!(link.director.get(&flow(1)).unwrap().generation, 200);
    assert!(old.apply(&mut link.director, false, link.now));
    assert_eq!(link.director.get(&flow(1)).unwrap().generation, 100);
}
