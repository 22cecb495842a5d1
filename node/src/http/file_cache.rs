//! What is below the served directory, remembered for a second: small files with their bytes, and of every path which
//! codings there are. Memory is bounded, and paths that are asked for once do not displace those that are asked for
//! often (quick_cache's S3-FIFO). Large files are opened for each request: they stay on the disk.

use super::coding::Coding;
use super::condition::Validators;
use super::files::{Directory, Opened, Stamp};
use super::media_type;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::fs::File;
use std::hash::RandomState;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Files up to this size are kept in memory, bytes. Pages, scripts and styles are mostly smaller.
pub(crate) const KEPT_LENGTH_MAX: u64 = 256 * 1024;

/// Bytes kept in memory at most, with a margin for what surrounds them.
const KEPT_TOTAL_MAX: u64 = 64 * 1024 * 1024;

/// What an entry takes besides path and content, bytes; rather too much.
const ENTRY_OVERHEAD: u64 = 1024;

/// Parts of the cache with locks of their own. More would leave each too small for large entries.
const SHARDS: usize = 8;

/// Entries that there is room for from the beginning.
const ENTRIES_EXPECTED: usize = 4096;

/// How long what was seen on the disk is taken for granted.
const TRUSTED: Duration = Duration::from_secs(1);

/// Files below a directory.
#[derive(Debug)]
pub(crate) struct FileCache {
    directory: Arc<Directory>,
    entries: Cache<String, Arc<Entry>, Weight, RandomState>,
}

/// What a path is.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// A file.
    File(Arc<Resource>),
    /// A directory, asked for without a final slash.
    Directory,
    /// Nothing that may be served.
    Nothing,
}

/// A file, with its precompressed siblings.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Its name below the directory.
    name: String,
    /// Its media type, which its siblings share.
    pub(crate) media_type: HeaderValue,
    /// It as it is, then its siblings.
    pub(crate) variants: Vec<Variant>,
}

/// A file in one coding.
#[derive(Debug)]
pub(crate) struct Variant {
    /// How its bytes are coded.
    pub(crate) coding: Coding,
    stamp: Stamp,
    /// What is kept of a small one.
    kept: Option<(Bytes, Validators)>,
}

/// A file's bytes, in memory or to be read.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// In memory.
    Bytes(Bytes),
    /// On the disk, and how many.
    File(Arc<File>, u64),
}

#[derive(Debug)]
struct Entry {
    found: Found,
    seen: Instant,
}

#[derive(Clone, Debug)]
struct Weight;

impl FileCache {
    /// A cache of what is below a directory, empty.
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(ENTRIES_EXPECTED)
            .weight_capacity(KEPT_TOTAL_MAX)
            .build()
            .expect("both capacities are set");
        let entries = Cache::with_options(options, Weight, RandomState::new(), DefaultLifecycle::default());
        Self { directory, entries }
    }

    /// What a decoded path of a URL, which begins with a slash, is, or was within the last second.
    ///
    /// # Errors
    /// The disk's, or there are too many open files.
    pub(crate) async fn look_up(&self, path: &str) -> io::Result<Found> {
        let stale = match self.entries.get(path) {
            Some(entry) if entry.seen.elapsed() < TRUSTED => return Ok(entry.found.clone()),
            Some(entry) => {
                self.entries.remove_if(path, |current| Arc::ptr_eq(current, &entry));
                Some(entry)
            }
            None => None,
        };
        // One request looks; others for the same path wait for what it finds.
        let place = match self.entries.get_value_or_guard_async(path).await {
            Ok(entry) => return Ok(entry.found.clone()),
            Err(place) => place,
        };
        let (directory, path) = (Arc::clone(&self.directory), path.to_owned());
        let looked = tokio::task::spawn_blocking(move || find(&directory, &path, stale.as_deref())).await;
        let found = looked.map_err(io::Error::other).flatten()?;
        // Refused only if another request has filled the place meanwhile: then that one's entry stays.
        drop(place.insert(Arc::new(Entry { found: found.clone(), seen: Instant::now() })));
        Ok(found)
    }

    /// The content of a variant, and what identifies it; `None` if it is gone meanwhile.
    ///
    /// # Errors
    /// As of [`Self::look_up`].
    pub(crate) async fn content(
        &self,
        resource: &Resource,
        variant: &Variant,
    ) -> io::Result<Option<(Content, Validators)>> {
        if let Some((bytes, validators)) = &variant.kept {
            return Ok(Some((Content::Bytes(bytes.clone()), validators.clone())));
        }
        let name = format!("{}{}", resource.name, variant.coding.suffix());
        let (directory, coding) = (Arc::clone(&self.directory), variant.coding);
        let looked = tokio::task::spawn_blocking(move || directory.look(&name)).await;
        match looked.map_err(io::Error::other).flatten()? {
            Opened::File(file, stamp) => {
                let now = SystemTime::now();
                let validators = validators(tag_of_stamp(&stamp, coding, now), &stamp, now);
                Ok(Some((Content::File(Arc::new(file), stamp.length), validators)))
            }
            Opened::Directory | Opened::Nothing => Ok(None),
        }
    }

    /// Bytes of memory that it takes, about.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> u64 {
        self.entries.weight()
    }

    /// Forgets what a path was.
    pub(crate) fn forget(&self, path: &str) {
        self.entries.remove(path);
    }
}

impl Found {
    fn variants(&self) -> &[Variant] {
        match self {
            Self::File(resource) => &resource.variants,
            Self::Directory | Self::Nothing => &[],
        }
    }
}

impl Variant {
    /// Bytes of it, as seen last.
    pub(crate) fn length(&self) -> u64 {
        self.stamp.length
    }
}

impl Content {
    /// Bytes of it.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }
}

impl Weighter<String, Arc<Entry>> for Weight {
    fn weight(&self, path: &String, entry: &Arc<Entry>) -> u64 {
        let kept = entry.found.variants().iter().filter_map(|variant| variant.kept.as_ref());
        ENTRY_OVERHEAD + 2 * path.len() as u64 + kept.map(|(bytes, _)| bytes.len() as u64).sum::<u64>()
    }
}

/// Looks what a path is. Bytes of what has not changed since `stale` are not read again.
fn find(directory: &Directory, path: &str, stale: Option<&Entry>) -> io::Result<Found> {
    let name = if path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() };
    let name = name.trim_start_matches('/');
    let known = stale.map(|entry| entry.found.variants()).unwrap_or_default();
    let mut variants = match directory.look(name)? {
        Opened::File(file, stamp) => vec![variant(file, stamp, Coding::Identity, known)?],
        // A file with a slash behind it is not there; neither is a page in a directory of its name.
        Opened::Directory if path.ends_with('/') => return Ok(Found::Nothing),
        Opened::Directory => return Ok(Found::Directory),
        Opened::Nothing => return Ok(Found::Nothing),
    };
    for coding in Coding::COMPRESSED {
        if let Opened::File(file, stamp) = directory.look(&format!("{name}{}", coding.suffix()))? {
            variants.push(variant(file, stamp, coding, known)?);
        }
    }
    Ok(Found::File(Arc::new(Resource { name: name.to_owned(), media_type: media_type::of(name), variants })))
}

fn variant(file: File, stamp: Stamp, coding: Coding, known: &[Variant]) -> io::Result<Variant> {
    if stamp.length > KEPT_LENGTH_MAX {
        return Ok(Variant { coding, stamp, kept: None });
    }
    let same = known.iter().find(|known| known.coding == coding && known.stamp == stamp);
    let kept = match same.and_then(|known| known.kept.as_ref()).filter(|(_, validators)| validators.settled) {
        Some(kept) => kept.clone(),
        None => {
            // Before the reading, so that a change meanwhile is found by the next look.
            let seen = SystemTime::now();
            let mut bytes = Vec::with_capacity(usize::try_from(stamp.length).unwrap_or(0));
            file.take(KEPT_LENGTH_MAX).read_to_end(&mut bytes)?;
            let validators = validators(tag_of_bytes(&bytes), &stamp, seen);
            (bytes.into(), validators)
        }
    };
    Ok(Variant { coding, stamp, kept: Some(kept) })
}

fn validators(etag: HeaderValue, stamp: &Stamp, now: SystemTime) -> Validators {
    // HTTP dates are whole seconds, and never in the future (RFC 9110 section 8.8.2.1).
    let modified = stamp.modified.min(now).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified.as_secs());
    Validators { etag, modified, settled: stamp.is_settled(now) }
}

/// The tag of bytes: the same on every node that has them, however they got there. Half of a BLAKE3 hash is enough,
/// as nobody gains from a collision but the author of both files.
fn tag_of_bytes(bytes: &[u8]) -> HeaderValue {
    let hash = blake3::hash(bytes).to_hex();
    HeaderValue::try_from(format!("\"{}\"", &hash[..32])).expect("hexadecimal digits make a tag")
}

/// The tag of a file that is too large to be read for it: date and length, which copying tools preserve. Weak as long
/// as another change could leave the same tag (RFC 9110 section 8.8.1).
fn tag_of_stamp(stamp: &Stamp, coding: Coding, now: SystemTime) -> HeaderValue {
    let modified = stamp.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let weak = if stamp.is_settled(now) { "" } else { "W/" };
    let tag = format!("{weak}\"{:x}-{:x}{}\"", modified.as_nanos(), stamp.length, coding.suffix());
    HeaderValue::try_from(tag).expect("hexadecimal digits make a tag")
}
