//! Reads segments record by record, checks all that can be checked, and tells what ends them.
//!
//! One record is either good, or the end (a zero length word, or the end of the file), or torn, or
//! damage. Torn is possible only in the newest segment, and only where a write that lost whole
//! sectors would look so:
//! - the file ends inside the record, and its length field and its own fields do not disagree;
//! - or its checksum fails and a whole sector's share of its bytes is zero.
//!
//! Stricter than etcd: padding must be zero, the length word must be one that writers make, the
//! records before the content must be where they belong, terms and the commit index may not go
//! back, and what follows a torn record is examined (`tail`).

use std::io;
use std::path::PathBuf;

use base::{ClusterId, Index, MemberId, Term};
use prost::Message as _;
use proto::etcdserverpb;
use raft::HardState;
use vfs::File;

use crate::record::{Content, EntryView, Head, Kind, Record, WORD_LEN, parse_word};
use crate::segment::SegmentName;
use crate::tail::{Tail, examine};
use crate::{Damage, Mark, Metadata, OpenError};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// How much is read at once; a longer record makes the window grow to its length.
const WINDOW: u64 = 1 << 20;

/// A file seen through a window, so that memory is bounded by its longest record.
pub(crate) struct Window<'f> {
    file: &'f dyn File,
    pub(crate) len: u64,
    bytes: Vec<u8>,
    start: u64,
    /// Where the last read was tried, for messages.
    pub(crate) tried: u64,
}

impl<'f> Window<'f> {
    pub(crate) fn new(file: &'f dyn File) -> io::Result<Self> {
        Ok(Self { file, len: file.len()?, bytes: Vec::new(), start: 0, tried: 0 })
    }

    /// The bytes at `at`, at most `len` and less only at the end of the file.
    pub(crate) fn slice(&mut self, at: u64, len: u64) -> io::Result<&[u8]> {
        let len = len.min(self.len.saturating_sub(at));
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + len > end {
            let wanted = len.max(WINDOW).min(self.len.saturating_sub(at));
            let wanted = usize::try_from(wanted).map_err(|_| io::ErrorKind::FileTooLarge)?;
            // Nothing is left of the old window if the read fails.
            self.bytes.clear();
            self.bytes.shrink_to(wanted);
            self.bytes.resize(wanted, 0);
            (self.start, self.tried) = (at, at);
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, at) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(at - self.start).expect("inside the window");
        let len = usize::try_from(len).expect("inside the window");
        Ok(&self.bytes[from..from + len])
    }

    /// The length word at `at`; `None` if the file ends inside it.
    pub(crate) fn word(&mut self, at: u64) -> io::Result<Option<u64>> {
        let bytes = self.slice(at, WORD_LEN)?;
        Ok(<[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes))
    }

    /// The head of a record whose word is at `at`.
    pub(crate) fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        Ok(Head::parse(self.slice(at + WORD_LEN, Head::LEN_MAX as u64)?))
    }
}

/// What stands at one place.
pub(crate) enum Step {
    /// A good record of `len` bytes; the next word is at `next`, the checksum is `crc` now.
    Record { len: u64, next: u64, crc: u32 },
    /// A zero word or the end of the file.
    End,
    /// A record that may have been torn; `next` is where it would end, if that is known.
    Torn { next: Option<u64> },
    /// Something that no crash leaves.
    Damaged(Damage),
}

/// Looks at the record at `at`. `crc` is the checksum before it, `None` if it is not known yet.
pub(crate) fn step(
    window: &mut Window<'_>,
    at: u64,
    crc: Option<u32>,
    newest: bool,
) -> io::Result<Step> {
    if at >= window.len {
        return Ok(Step::End);
    }
    let Some(word) = window.word(at)? else {
        return Ok(if newest { Step::Torn { next: None } } else { Step::Damaged(Damage::Short) });
    };
    if word == 0 {
        return end_or_damage(window, at);
    }
    let Some((len, padding)) = parse_word(word) else {
        return Ok(Step::Damaged(Damage::Header));
    };
    let next = at + WORD_LEN + len + padding;
    if length_disagrees(window, at, len)? {
        return Ok(Step::Damaged(Damage::Length));
    }
    if next > window.len {
        return Ok(if newest { Step::Torn { next: None } } else { Step::Damaged(Damage::Short) });
    }
    let body = window.slice(at + WORD_LEN, len + padding)?;
    let (bytes, padding) = body.split_at(usize::try_from(len).expect("inside the window"));
    let damage = match check(bytes, crc) {
        Ok(_) if padding.iter().any(|byte| *byte != 0) => Damage::Padding,
        Ok(crc) => return Ok(Step::Record { len, next, crc }),
        // Whoever believes a record that a crash tore.
        Err(Damage::Crc { stored, .. })
            if newest && base::probe::mutant("torn-end-is-believed") =>
        {
            return Ok(Step::Record { len, next, crc: stored });
        }
        Err(damage) => damage,
    };
    let may_be_torn = matches!(damage, Damage::Record | Damage::Crc { .. });
    if newest && may_be_torn && has_zero_sector(bytes, at + WORD_LEN) {
        return Ok(Step::Torn { next: Some(next) });
    }
    Ok(Step::Damaged(damage))
}

/// The checksum after the record, or what is wrong with it.
fn check(bytes: &[u8], crc: Option<u32>) -> Result<u32, Damage> {
    let record = Record::parse(bytes).ok_or(Damage::Record)?;
    let kind = record.kind();
    let computed = match (kind, crc) {
        // Every suffix of the segments is a log: its first record says where the chain stands.
        (Some(Kind::Crc), None) => record.crc,
        (Some(Kind::Crc), Some(crc)) => crc,
        (_, crc) => crc32c::crc32c_append(crc.unwrap_or(0), record.data),
    };
    if record.crc != computed {
        return Err(Damage::Crc { stored: record.crc, computed });
    }
    if kind.is_none() {
        return Err(Damage::Kind(record.number));
    }
    Ok(computed)
}

/// A zero word ends the log, unless the rest of its record stands behind it in the same sector: no
/// disk loses half a sector.
fn end_or_damage(window: &mut Window<'_>, at: u64) -> io::Result<Step> {
    let head = window.head(at)?;
    let same_sector = head.is_some_and(|head| !crosses_sector(at, head));
    Ok(if same_sector { Step::Damaged(Damage::Length) } else { Step::End })
}

/// Whether the record's own fields give another length than its word. If they are spread over two
/// sectors, one of which may be lost, nothing is known.
fn length_disagrees(window: &mut Window<'_>, at: u64, len: u64) -> io::Result<bool> {
    let head = window.head(at)?;
    Ok(head.is_some_and(|head| head.record_len != len && !crosses_sector(at, head)))
}

fn crosses_sector(at: u64, head: Head) -> bool {
    at / SECTOR != (at + WORD_LEN + head.len - 1) / SECTOR
}

/// Whether the share of some sector in these bytes, which stand at `at`, is all zero. Padding is
/// left out by the caller: it is zero in an intact record too.
fn has_zero_sector(bytes: &[u8], at: u64) -> bool {
    let first = usize::try_from(SECTOR - at % SECTOR).expect("at most a sector").min(bytes.len());
    let (first, rest) = bytes.split_at(first);
    std::iter::once(first)
        .chain(rest.chunks(512))
        .any(|share| !share.is_empty() && share.iter().all(|byte| *byte == 0))
}

/// A segment that is open.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    pub(crate) file: std::sync::Arc<dyn File>,
}

/// What a scan finds, in the order of the log. Hard states are only followed to the last one.
pub(crate) enum Found<'a> {
    Entry(EntryView<'a>),
    Mark(Mark),
}

/// Where something was found.
pub(crate) struct Place<'a> {
    pub(crate) segment: &'a OpenSegment,
    /// Which of the scanned segments it is.
    pub(crate) nth: usize,
    pub(crate) offset: u64,
}

/// Where the log ends.
#[derive(Debug)]
pub(crate) struct End {
    /// Behind the last good record of the newest segment.
    pub(crate) offset: u64,
    /// The checksum there.
    pub(crate) crc: u32,
    /// What stands behind it, if anything does.
    pub(crate) tail: Option<Tail>,
    pub(crate) metadata: Metadata,
    pub(crate) hard_state: HardState,
}

/// Reads all records of these segments, which follow one another and end with the newest.
pub(crate) fn scan(
    segments: &[OpenSegment],
    mut visit: impl FnMut(&Place<'_>, Found<'_>) -> Result<(), OpenError>,
) -> Result<End, OpenError> {
    let mut scan = Scan::default();
    for (nth, segment) in segments.iter().enumerate() {
        scan.segment(segment, nth, nth + 1 == segments.len(), &mut visit)?;
    }
    let newest = segments.last().expect("a log has a segment");
    let (Some(crc), Some(metadata)) = (scan.crc, scan.metadata) else {
        return Err(damaged(newest, scan.offset, scan.last, Damage::Start));
    };
    let Scan { offset, tail, hard_state, .. } = scan;
    Ok(End { offset, crc, tail, metadata, hard_state })
}

#[derive(Default)]
struct Scan {
    crc: Option<u32>,
    metadata: Option<Metadata>,
    metadata_bytes: Vec<u8>,
    hard_state: HardState,
    /// The entry found last, for messages.
    last: Index,
    offset: u64,
    tail: Option<Tail>,
}

fn damaged(segment: &OpenSegment, offset: u64, index: Index, damage: Damage) -> OpenError {
    OpenError::Damaged { file: segment.path.clone(), offset, index, damage }
}

impl Scan {
    fn segment(
        &mut self,
        segment: &OpenSegment,
        nth: usize,
        newest: bool,
        visit: &mut impl FnMut(&Place<'_>, Found<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let unread =
            |offset, source| OpenError::Read { file: segment.path.clone(), offset, source };
        let mut window = Window::new(&*segment.file).map_err(|source| unread(0, source))?;
        self.offset = 0;
        for records in 0_u64.. {
            let at = self.offset;
            let step = step(&mut window, at, self.crc, newest)
                .map_err(|source| unread(window.tried, source))?;
            let torn_next = match step {
                Step::Record { len, next, crc } => {
                    self.offset = next;
                    self.crc = Some(crc);
                    let bytes = window
                        .slice(at + WORD_LEN, len)
                        .map_err(|source| unread(at + WORD_LEN, source))?;
                    let place = Place { segment, nth, offset: at };
                    self.record(&place, records, bytes, visit)?;
                    continue;
                }
                Step::End => None,
                Step::Torn { next } => next,
                Step::Damaged(damage) => return Err(damaged(segment, at, self.last, damage)),
            };
            // Both were synced before the segment got its name.
            if records < 2 {
                return Err(damaged(segment, at, self.last, Damage::Start));
            }
            if newest {
                let examined = examine(&mut window, at, torn_next);
                self.tail = examined.map_err(|source| unread(window.tried, source))?;
            }
            break;
        }
        match self.tail.as_ref().and_then(|tail| tail.evidence) {
            None => Ok(()),
            Some(evidence) => {
                let damage = Damage::Synced { evidence };
                Err(damaged(segment, self.offset, self.last, damage))
            }
        }
    }

    fn record(
        &mut self,
        place: &Place<'_>,
        before: u64,
        bytes: &[u8],
        visit: &mut impl FnMut(&Place<'_>, Found<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let record = Record::parse(bytes).expect("checked by the step before");
        let refuse = |damage| Err(damaged(place.segment, place.offset, self.last, damage));
        let Some(content) = record.content() else { return refuse(Damage::Content) };
        match (before, content) {
            (0, Content::Crc) => Ok(()),
            (1, Content::Metadata(bytes)) => self.metadata(place, bytes),
            (0 | 1, _) | (_, Content::Crc | Content::Metadata(_)) => refuse(Damage::Place),
            (_, Content::Entry(entry)) => {
                self.last = entry.index;
                visit(place, Found::Entry(entry))
            }
            (_, Content::State(state)) => self.state(place, state),
            (_, Content::Mark(mark)) => visit(place, Found::Mark(mark)),
        }
    }

    fn metadata(&mut self, place: &Place<'_>, bytes: &[u8]) -> Result<(), OpenError> {
        let refused = || damaged(place.segment, place.offset, self.last, Damage::Content);
        let decoded = etcdserverpb::Metadata::decode(bytes).map_err(|_| refused())?;
        let found =
            Metadata { member: MemberId(decoded.node_id), cluster: ClusterId(decoded.cluster_id) };
        if let Some(metadata) = self.metadata {
            if metadata != found {
                return Err(OpenError::OtherOwner {
                    file: place.segment.path.clone(),
                    member: metadata.member,
                    cluster: metadata.cluster,
                    found_member: found.member,
                    found_cluster: found.cluster,
                });
            }
            if self.metadata_bytes != bytes {
                return Err(refused());
            }
        }
        self.metadata = Some(found);
        self.metadata_bytes = bytes.to_vec();
        Ok(())
    }

    fn state(&mut self, place: &Place<'_>, state: HardState) -> Result<(), OpenError> {
        let goes_back = |what, before, found| OpenError::GoesBack {
            file: place.segment.path.clone(),
            offset: place.offset,
            what,
            before,
            found,
        };
        let (Term(before), Term(term)) = (self.hard_state.term, state.term);
        if term < before {
            return Err(goes_back("the term", before, term));
        }
        let (Index(before), Index(commit)) = (self.hard_state.commit, state.commit);
        if commit < before {
            return Err(goes_back("the commit index", before, commit));
        }
        self.hard_state = state;
        Ok(())
    }
}
