//! Files below one directory, and never anything above it: the kernel resolves paths with `RESOLVE_BENEATH`
//! (openat2(2)), so neither `..` nor a symbolic link leads out, whatever a request says.

use hyper::body::Bytes;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Files up to this size are read at once, within the thread that opened them, bytes.
const WHOLE_MAX: u64 = 256 * 1024;

/// A directory whose files are served.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
}

/// What a path below the directory is.
#[derive(Debug)]
pub(crate) enum Found {
    /// A regular file.
    File(FoundFile),
    /// A directory, asked for without a final slash.
    Directory,
    /// Nothing that may be served.
    Nothing,
}

/// A regular file.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// What is in it.
    pub(crate) content: Content,
    /// When it changed last, whole seconds.
    pub(crate) modified: SystemTime,
    /// Media type, with a charset for text.
    pub(crate) media_type: String,
}

/// A file's content.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of a small one.
    Whole(Bytes),
    /// A large one, opened, and its length in bytes.
    Open(File, u64),
}

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

    /// What a decoded path of a URL, which begins with a slash, is. Blocks on the disk.
    pub(crate) fn find(&self, path: &str) -> std::io::Result<Found> {
        let name = if path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() };
        let name = name.trim_start_matches('/');
        // NONBLOCK: opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            Ok(opened) => describe(opened, name),
            Err(errno) if is_absence(errno) => Ok(Found::Nothing),
            Err(errno) => Err(errno.into()),
        }
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

fn describe(opened: OwnedFd, name: &str) -> std::io::Result<Found> {
    let stat = fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(Found::Directory),
        FileType::RegularFile => {}
        _ => return Ok(Found::Nothing),
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let file = File::from(opened);
    let content = if length <= WHOLE_MAX {
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(WHOLE_MAX).read_to_end(&mut bytes)?;
        Content::Whole(bytes.into())
    } else {
        Content::Open(file, length)
    };
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    Ok(Found::File(FoundFile { content, modified, media_type: media_type(name) }))
}

fn media_type(name: &str) -> String {
    let guessed = mime_guess::from_path(name).first_or_octet_stream();
    let is_text =
        guessed.type_() == mime_guess::mime::TEXT || guessed.subtype() == mime_guess::mime::JAVASCRIPT;
    if is_text { format!("{guessed}; charset=utf-8") } else { guessed.to_string() }
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
        std::fs::write(root.join("big.bin"), vec![7; 300_000]).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc", root.join("etc")).unwrap();
        symlink("index.html", root.join("inside")).unwrap();
        let directory = Directory::open(&root).unwrap();
        (outside, directory)
    }

    #[test]
    fn files_come_with_their_media_type() {
        let (_guard, directory) = site();
        for (path, media_type, length) in [
            ("/", "text/html; charset=utf-8", 7),
            ("//index.html", "text/html; charset=utf-8", 7),
            ("/inside", "application/octet-stream", 7),
            ("/sub/a b.js", "text/javascript; charset=utf-8", 1),
            ("/big.bin", "application/octet-stream", 300_000),
        ] {
            let Found::File(file) = directory.find(path).unwrap() else { panic!("{path} is a file") };
            let found_length = match &file.content {
                Content::Whole(bytes) => bytes.len() as u64,
                Content::Open(_, length) => *length,
            };
            assert_eq!((file.media_type.as_str(), found_length), (media_type, length), "{path}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let (_guard, directory) = site();
        for path in
            ["/../secret", "/sub/../../secret", "/out", "/etc/passwd", "//../secret", "/..", "/./../secret"]
        {
            assert!(matches!(directory.find(path).unwrap(), Found::Nothing), "{path}");
        }
    }

    #[test]
    fn directories_and_absent_files_are_told_apart() {
        let (_guard, directory) = site();

        assert!(matches!(directory.find("/sub").unwrap(), Found::Directory));
        assert!(matches!(directory.find("/sub/").unwrap(), Found::Nothing));
        assert!(matches!(directory.find("/index.html/x").unwrap(), Found::Nothing));
        assert!(matches!(directory.find(&format!("/{}", "x".repeat(5000))).unwrap(), Found::Nothing));
    }

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(decode_path("/a%20b/%c3%A9"), Some("/a b/é".to_owned()));
        for broken in ["/%", "/%2", "/%zz", "/%00", "/%ff", "/%+1"] {
            assert_eq!(decode_path(broken), None, "{broken}");
        }
    }
}
