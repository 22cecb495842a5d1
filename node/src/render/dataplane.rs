//! What `dpr status` says of the data plane: which one it is, why, and how full its maps are.

use super::printable;
use dpr_model::status::{DataplaneStatus, MapStatus, ProgramsStatus};
use std::fmt::Write as _;

/// One to four lines.
pub(super) fn lines(dataplane: &DataplaneStatus) -> String {
    let mut text = format!(
        "dataplane {} on {}, lease {}\n",
        printable(&dataplane.kind),
        printable(&dataplane.interface),
        if dataplane.lease_valid { "valid" } else { "expired: it decides nothing" }
    );
    if let Some(reason) = &dataplane.reason {
        let _ = writeln!(text, "          {}", printable(reason));
    }
    if let Some(programs) = &dataplane.programs {
        let _ = writeln!(text, "programs  {}", programs_line(programs));
        let _ = writeln!(text, "maps      {}", programs.maps.iter().map(map).collect::<Vec<_>>().join(", "));
    }
    text
}

fn programs_line(programs: &ProgramsStatus) -> String {
    let why = programs.why_generic.as_ref().map(|why| format!(" ({})", printable(why)));
    let pinned = match &programs.pinned {
        Some(path) => format!("pinned in {}", printable(path)),
        None => "not pinned".to_owned(),
    };
    format!(
        "{}{}, {pinned}, earlier maps: {}; packets handled in user space: {}, SYNs of a flood: {}",
        printable(&programs.mode),
        why.unwrap_or_default(),
        printable(&programs.found),
        programs.handled_above,
        programs.syns_without_entry
    )
}

fn map(map: &MapStatus) -> String {
    let memory = map.memory_bytes.map(|bytes| format!(" ({} KiB)", bytes / 1024)).unwrap_or_default();
    format!("{} {} of {}{memory}", printable(&map.name), map.entries, map.capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_shown_with_their_mode_its_reason_and_the_fill_of_maps() {
        let programs = ProgramsStatus {
            mode: "generic".into(),
            why_generic: Some("Operation not supported".into()),
            pinned: Some("/sys/fs/bpf/dpr/1".into()),
            found: "taken over".into(),
            handled_above: 3,
            syns_without_entry: 9,
            maps: vec![MapStatus { name: "flows".into(), entries: 7, capacity: 8, memory_bytes: Some(2048) }],
        };
        let dataplane = DataplaneStatus {
            kind: "xdp".into(),
            interface: "eth0".into(),
            lease_valid: true,
            programs: Some(programs),
            reason: None,
        };

        assert_eq!(
            lines(&dataplane),
            "dataplane xdp on eth0, lease valid\n\
             programs  generic (Operation not supported), pinned in /sys/fs/bpf/dpr/1, earlier maps: taken over; \
             packets handled in user space: 3, SYNs of a flood: 9\n\
             maps      flows 7 of 8 (2 KiB)\n"
        );
    }

    #[test]
    fn a_data_plane_without_programs_says_why() {
        let dataplane = DataplaneStatus {
            kind: "userspace".into(),
            interface: "eth0".into(),
            lease_valid: false,
            programs: None,
            reason: Some("a service is forwarded by nat".into()),
        };

        assert_eq!(
            lines(&dataplane),
            "dataplane userspace on eth0, lease expired: it decides nothing\n          a service is forwarded by nat\n"
        );
    }
}
