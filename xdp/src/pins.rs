//! Where maps and links outlive the daemon that made them: files in a BPF file system.
//!
//! ```text
//! <directory>/maps-<layout>-<entries>-<sizes>-<node>/<map>   gone on with if everything is alike, read if entries and node are
//! <directory>/xdp-native-<ifindex>                           a link keeps its program where it is attached
//! ```
//!
//! A killed daemon leaves them, so the programs go on by what they were last told; the next one takes them over. This module
//! refuses to mount anything, and to touch what is named otherwise.

use crate::abi::TICK_SHIFT;
use crate::error::XdpError;
use crate::programs::Sizes;
use dpr_model::NodeId;
use rustix::fs::statfs;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// What the directories with maps begin with.
const MAPS: &str = "maps-";
/// What the files with links begin with.
const LINKS: [&str; 2] = ["xdp-", "tcx-"];
/// Everything that says how maps are laid out, and in which order counters are.
const LAYOUT: [&str; 4] = [
    include_str!("../bpf/constants.h"),
    include_str!("../bpf/reasons.h"),
    include_str!("../bpf/structs.h"),
    include_str!("../bpf/maps.h"),
];

/// What of it `Left` reads, each up to the end of its declaration.
const ENTRIES: [&str; 9] = [
    "enum tcp_state {",
    "struct address {",
    "struct flow_key {",
    "struct flow_key_v6 {",
    "struct flow_entry {",
    "enum carried_flag {",
    "struct carried {",
    "struct node {",
    "struct delivery {",
];

/// A directory for the maps and links of one node.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
    maps: PathBuf,
    /// How the names of directories end whose maps have such entries, of this node, whatever their sizes.
    readable: Readable,
    found: Found,
}

#[derive(Clone, Debug)]
struct Readable {
    entries: String,
    node: String,
}

/// What an earlier daemon left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Maps that can be taken over.
    Maps,
    /// Maps that are laid out or sized otherwise, or another node's: of their content only what [`crate::Left`] reads is kept.
    OtherMaps,
}

impl Pins {
    /// Prepares `directory`, which need not be there yet.
    ///
    /// # Errors
    /// It is not in a BPF file system, or cannot be made.
    pub fn open(directory: &Path, sizes: Sizes, node: NodeId) -> Result<Self, XdpError> {
        let of = |source| XdpError::Pins { path: directory.to_owned(), source };
        Self::check(directory)?;
        fs::create_dir_all(directory).map_err(of)?;
        let Sizes { flows, half_open } = sizes;
        let readable =
            Readable { entries: format!("-{:016x}-", layout_of_entries()), node: format!("-{:08x}", node.0) };
        let Readable { entries, node } = &readable;
        let maps = directory.join(format!("{MAPS}{:016x}{entries}{flows}-{half_open}{node}", layout()));
        let found = match (maps.is_dir(), others(directory, &maps).map_err(of)?.is_empty()) {
            (true, _) => Found::Maps,
            (false, true) => Found::Nothing,
            (false, false) => Found::OtherMaps,
        };
        fs::create_dir_all(&maps).map_err(of)?;
        Ok(Self { directory: directory.to_owned(), maps, readable, found })
    }

    /// Whether something could be pinned in `directory`, which need not be there yet; makes nothing.
    ///
    /// # Errors
    /// It is not in a BPF file system.
    pub fn check(directory: &Path) -> Result<(), XdpError> {
        match is_on_bpffs(directory) {
            Ok(true) => Ok(()),
            Ok(false) => Err(XdpError::NoBpfFileSystem(directory.to_owned())),
            Err(source) => Err(XdpError::Pins { path: directory.to_owned(), source }),
        }
    }

    /// What was there before.
    pub fn found(&self) -> Found {
        self.found
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lets go of maps that no program uses any more.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn forget_other_maps(&self) -> Result<(), XdpError> {
        let of = |source| XdpError::Pins { path: self.directory.clone(), source };
        others(&self.directory, &self.maps).map_err(of)?.iter().try_for_each(fs::remove_dir_all).map_err(of)
    }

    /// Other maps of this node, with entries that this build can read.
    pub(crate) fn left(&self) -> Result<Option<PathBuf>, XdpError> {
        let of = |source| XdpError::Pins { path: self.directory.clone(), source };
        let others = others(&self.directory, &self.maps).map_err(of)?;
        Ok(others.into_iter().find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(&self.readable.entries) && name.ends_with(&self.readable.node)
        }))
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// Where a link is pinned. In a BPF file system no name has a dot, as those of interfaces may.
    pub(crate) fn link(&self, kind: &str, interface_index: u32) -> PathBuf {
        self.directory.join(format!("{kind}-{interface_index}"))
    }
}

/// Removes every map and link that is pinned in `directory`, and the directory; without the links the programs leave their
/// interfaces. Says whether there was one.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_pins(directory: &Path) -> Result<bool, XdpError> {
    let of = |source| XdpError::Pins { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(of)?,
    };
    let (mut links, mut maps) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(of)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(MAPS) {
            maps.push(entry.path());
        } else if LINKS.iter().any(|link| name.starts_with(link)) {
            links.push(entry.path());
        }
    }
    links.iter().try_for_each(fs::remove_file).map_err(of)?;
    maps.iter().try_for_each(fs::remove_dir_all).map_err(of)?;
    fs::remove_dir(directory).map_err(of)?;
    Ok(true)
}

/// Whether `path`, or what of it there is, is in a BPF file system.
fn is_on_bpffs(path: &Path) -> io::Result<bool> {
    let there = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(there)?.f_type as u64 == BPF_FS_MAGIC)
}

/// Directories with maps other than `ours`.
fn others(directory: &Path, ours: &Path) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(MAPS) && entry.path() != ours {
            others.push(entry.path());
        }
    }
    Ok(others)
}

/// A number that is another one for every other layout of the maps; remarks and blanks do not count.
fn layout() -> u64 {
    hash(LAYOUT.into_iter().flat_map(without_remarks))
}

/// The same for what [`crate::Left`] reads.
fn layout_of_entries() -> u64 {
    let declarations = LAYOUT.into_iter().flat_map(|text| {
        let from = |name: &&str| text.find(*name).map(|start| &text[start..]);
        ENTRIES.iter().filter_map(from).filter_map(|text| text.split_once("};")).map(|(its, _)| its)
    });
    hash(declarations.flat_map(without_remarks).chain(TICK_SHIFT.to_be_bytes()))
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The bytes of a C text that are neither blank nor in a remark. Words that only blanks part are not confused with others:
/// what they are part of would not be C.
fn without_remarks(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((code, behind)) = rest.split_once("/*") {
        bytes.extend(code.bytes());
        rest = behind.split_once("*/").map_or("", |(_, behind)| behind);
    }
    bytes.extend(rest.bytes());
    bytes.retain(|byte| !byte.is_ascii_whitespace());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_and_blanks_are_no_part_of_the_layout() {
        assert_eq!(without_remarks("a /* b\n c */ d;\n\te /* f"), b"ad;e");
        assert_ne!(layout(), layout_of_entries());
    }

    #[test]
    fn every_declaration_of_what_is_read_is_found_once() {
        for name in ENTRIES {
            assert_eq!(LAYOUT.iter().map(|text| text.matches(name).count()).sum::<usize>(), 1, "{name}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_refused_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = directory.path().join("dpr");
        let sizes = Sizes { flows: 1, half_open: 1 };

        let refused = Pins::open(&wanted, sizes, NodeId(1));

        assert!(matches!(refused, Err(XdpError::NoBpfFileSystem(_))), "{refused:?}");
        assert!(!wanted.exists());
        assert!(!remove_pins(&wanted).unwrap());
    }
}
