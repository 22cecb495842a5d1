//! Files below one directory, and never anything above it: the kernel resolves paths with `RESOLVE_BENEATH`
//! (openat2(2)), so neither `..` nor a symbolic link leads out, whatever a request says.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A directory whose files are served.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
}

/// What a name below the directory is.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A regular file.
    File(File, Stamp),
    /// A directory.
    Directory,
    /// Nothing that may be served.
    Nothing,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// When its content changed last, as the file says. Tools set it, so that copies have the date of the original.
    pub(crate) modified: SystemTime,
    /// When it changed last, as the kernel says.
    changed: SystemTime,
}

/// Two changes so close together may leave one stamp: network file systems count whole seconds.
const SETTLING: Duration = Duration::from_secs(1);

impl Directory {
    /// Opens the directory.
    ///
    /// # Errors
    /// It does not exist, is no directory, or may not be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// What a name, which does not begin with a slash, is. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's, or there are too many open files.
    pub(crate) fn look(&self, name: &str) -> io::Result<Opened> {
        // NONBLOCK: opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            Ok(opened) => describe(File::from(opened)),
            Err(errno) if is_absence(errno) => Ok(Opened::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Stamp {
    /// Whether a change from now on must change the stamp.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        now.duration_since(self.changed).is_ok_and(|age| age > SETTLING)
    }
}

/// Errors that say "there is no such thing for you"; EXDEV is what a path gets that leads out.
fn is_absence(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::XDEV
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::NXIO
            | Errno::PERM
    )
}

fn describe(file: File) -> io::Result<Opened> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Ok(Opened::Directory);
    }
    if !metadata.is_file() {
        return Ok(Opened::Nothing);
    }
    let stamp = Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
    };
    Ok(Opened::File(file, stamp))
}

/// A time of a file; what is before 1970 is 1970, as HTTP has no use for it.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Decodes the percent encoding of a URL's path (RFC 3986 section 2.1). `None` for a broken escape, a zero byte, or
/// bytes that are no UTF-8.
pub(crate) fn decode_path(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (hex_digit(bytes.next()?)? << 4) | hex_digit(bytes.next()?)?,
            _ => byte,
        });
    }
    if decoded.contains(&0) { None } else { String::from_utf8(decoded).ok() }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn site() -> (tempfile::TempDir, Directory) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("www");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("index.html"), "<p>home").unwrap();
        std::fs::write(root.join("sub/a b.js"), "1").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("index.html", root.join("inside")).unwrap();
        let directory = Directory::open(&root).unwrap();
        (outside, directory)
    }

    #[test]
    fn files_come_with_their_length_and_date() {
        let (_guard, directory) = site();
        for (name, length) in [("index.html", 7), ("inside", 7), ("sub/a b.js", 1), ("sub/../index.html", 7)]
        {
            let Opened::File(_, stamp) = directory.look(name).unwrap() else { panic!("{name} is a file") };
            assert_eq!(stamp.length, length, "{name}");
            assert!(!stamp.is_settled(stamp.modified), "{name}");
            assert!(stamp.is_settled(stamp.modified + Duration::from_secs(9)), "{name}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let (_guard, directory) = site();
        for name in
            ["../secret", "sub/../../secret", "out", "etc/passwd", "/etc/passwd", "..", "./../secret", ""]
        {
            assert!(matches!(directory.look(name).unwrap(), Opened::Nothing), "{name}");
        }
    }

    #[test]
    fn directories_absent_files_and_pipes_are_told_apart() {
        let (guard, directory) = site();
        let pipe = guard.path().join("www/pipe");
        rustix::fs::mknodat(CWD, pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();

        assert!(matches!(directory.look("sub").unwrap(), Opened::Directory));
        for name in ["sub/none", "index.html/x", "pipe", &"x".repeat(5000)] {
            assert!(matches!(directory.look(name).unwrap(), Opened::Nothing), "{name}");
        }
    }

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(decode_path("/a%20b/%c3%A9"), Some("/a b/é".to_owned()));
        for broken in ["/%", "/%2", "/%zz", "/%00", "/%ff", "/%+1"] {
            assert_eq!(decode_path(broken), None, "{broken}");
        }
    }
}
