//! What a seed decides before anything happens: sizes, speeds, and which faults there are (swarm).

use crate::random::Random;

/// The circumstances of one cluster's life.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct Config {
    /// Members at the start.
    pub(crate) members: u64,
    pub(crate) clients: usize,
    /// Milliseconds between a client's looks at its call, at most.
    pub(crate) think_millis: u64,
    /// Virtual milliseconds with faults.
    pub(crate) fault_millis: u64,
    pub(crate) tick_millis: u64,
    pub(crate) election_ticks: u64,
    pub(crate) pre_vote: bool,
    /// Entries between two marks of the log, and how many stay in memory behind one.
    pub(crate) snapshot_entries: u64,
    pub(crate) catchup_entries: u64,
    pub(crate) message_bytes_max: u64,
    pub(crate) inflight_messages_max: usize,
    pub(crate) compact_batch_rows: usize,
    pub(crate) event_ring_bytes_max: usize,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) keys: u64,
    /// Milliseconds a message takes, at most, but for outliers.
    pub(crate) latency_millis: u64,
    /// One message in so many takes up to two seconds more.
    pub(crate) outliers: u64,
    /// One message in so many is lost, or comes twice; 0 for none.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Milliseconds a write to the log takes, at most, but for outliers.
    pub(crate) disk_millis: u64,
    /// Milliseconds between two faults, on average; 0 for none at all.
    pub(crate) fault_every_millis: u64,
    pub(crate) faults: Vec<Fault>,
    /// How fast members' clocks may run, in thousandths more or less.
    pub(crate) drift: u64,
    pub(crate) quota_bytes: Option<u64>,
    /// Whether batches that wait for the log are written as one.
    pub(crate) joins_batches: bool,
    /// Milliseconds in which what comes to a member is gathered, at most; 0 for one thing at a time.
    pub(crate) turn_millis: u64,
    /// Bytes of a value, at most.
    pub(crate) value_bytes: usize,
    /// Whether clients renew their leases as often as they can.
    pub(crate) renewing: bool,
    /// Whether monotonic clocks leap too.
    pub(crate) leaps: bool,
    /// Whether there are users and roles, and clients are asked who they are.
    pub(crate) accounts: bool,
    /// Whether there are clients of the v2 generation, and whether they make so many changes that
    /// members forget the first.
    pub(crate) second: bool,
    pub(crate) second_forgets: bool,
    /// Whether the cluster version goes down and up.
    pub(crate) versions: bool,
    /// Whether a member that leads alone answers reads without a round, as the server does.
    pub(crate) reads_alone: bool,
    /// Whether a member hears which of the proposals that it passed on never arrived.
    pub(crate) gives_back: bool,
}

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends; the disk keeps what was written.
    Kill,
    /// Power is lost at the moment that is worst: while entries of a new term are written together
    /// with the word that it began, or right after a snapshot took the place of the log.
    Ambush,
    /// The machine loses power; the disk keeps what was synced and any part of the rest.
    PowerCut,
    /// All machines lose power at once.
    PowerCutAll,
    /// Power is lost in the middle of something that the disk does.
    PowerCutAtWrite,
    /// The process stands still and goes on later.
    Pause,
    /// The wall clock is set, or the monotonic clock leaps.
    ClockJump,
    /// The power goes where the code has a failpoint.
    Failpoint,
    /// A bit changes on the disk.
    BitFlip,
    /// The disk loses or misdirects a write and says that all went well.
    DiskLie,
    /// A member starts on a disk as it was some time ago.
    OlderDisk,
    /// A member is cut off.
    Isolate,
    /// One direction of one link is cut.
    OneWay,
    /// Two members do not hear each other; the others hear both.
    Bridge,
    /// A connection is lost with what is on it.
    Reset,
    /// One direction of one link is slow.
    SlowLink,
    /// The cluster falls into two parts.
    Split,
    /// Links come back.
    Heal,
    /// The disk is full for a while.
    DiskFull,
    /// A write or sync fails with an error of the device.
    DiskError,
    /// The disk answers nothing for a while.
    DiskHang,
    /// The disk is slow for a while.
    DiskSlow,
    /// A member loses its disk for good, and is replaced.
    DiskLoss,
    /// The database gives back what it does not use.
    Defragment,
    /// A client asks for much and waits for nothing.
    Burst,
    /// The leader is cut off while it is asked for much.
    Usurp,
    /// The leader stands still, and then renews a lease.
    Doze,
    /// Another member is asked to lead.
    Transfer,
    /// A learner or voter is added, promoted, or a member removed.
    Membership,
    /// Keys are compacted.
    Compact,
    /// The device fails once while something is read.
    ReadError,
    /// A member starts on an empty disk, under the id that it had.
    WipedDisk,
    /// An operator saves a snapshot.
    Save,
    /// An operator raises the alarm of a full quota, and takes it back.
    Alarm,
    /// A member is given other addresses.
    Update,
}

/// Those that came later to the simulator.
const LATE: [Fault; 5] =
    [Fault::ReadError, Fault::WipedDisk, Fault::Save, Fault::Alarm, Fault::Update];

const ALL: [Fault; 30] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutAll,
    Fault::PowerCutAtWrite,
    Fault::Pause,
    Fault::ClockJump,
    Fault::Failpoint,
    Fault::BitFlip,
    Fault::DiskLie,
    Fault::OlderDisk,
    Fault::Bridge,
    Fault::Reset,
    Fault::SlowLink,
    Fault::Burst,
    Fault::Usurp,
    Fault::Doze,
    Fault::Ambush,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Split,
    Fault::Heal,
    Fault::DiskFull,
    Fault::DiskError,
    Fault::DiskHang,
    Fault::DiskSlow,
    Fault::DiskLoss,
    Fault::Defragment,
    Fault::Transfer,
    Fault::Membership,
    Fault::Compact,
];

impl Config {
    /// `side` and `late` decide what came later to the simulator: without it a seed's life stays what
    /// it was.
    pub(crate) fn draw(random: &mut Random, side: &mut Random, late: &mut Random) -> Self {
        let faults = ALL.into_iter().filter(|fault| {
            // Without healing nothing would go on.
            *fault == Fault::Heal || random.one_in(2)
        });
        let mut faults: Vec<Fault> = faults.collect();
        let is_late = late.one_in(3);
        faults.extend(LATE.into_iter().filter(|_| is_late && late.one_in(2)));
        let calm = random.one_in(10);
        Self {
            members: random.choose(&[1, 1, 2, 3, 3, 3, 3, 3, 5, 7]),
            clients: random.index(6) + 2,
            think_millis: random.choose(&[20, 60, 200]),
            fault_millis: random.between(10_000, 40_000),
            tick_millis: 100,
            election_ticks: random.choose(&[5, 10, 10]),
            pre_vote: !random.one_in(4),
            snapshot_entries: random.choose(&[3, 10, 30, 100]),
            catchup_entries: random.choose(&[0, 1, 3, 10]),
            message_bytes_max: random.choose(&[1, 200, 1 << 20]),
            inflight_messages_max: random.choose(&[1, 2, 512]),
            compact_batch_rows: random.choose(&[1, 3, 1000]),
            event_ring_bytes_max: random.choose(&[300, 3000, 1 << 20]),
            wal_segment_bytes: random.choose(&[4096, 16_384, 65_536]),
            keys: random.choose(&[1, 3, 20]),
            latency_millis: random.choose(&[1, 5, 20, 100]),
            outliers: random.choose(&[20, 200, 2000]),
            loss: if calm { 0 } else { random.choose(&[0, 3, 10, 50, 200]) },
            duplication: if calm { 0 } else { random.choose(&[0, 10, 50]) },
            disk_millis: random.choose(&[0, 1, 10, 50]),
            fault_every_millis: if calm { 0 } else { random.choose(&[300, 1000, 3000]) },
            faults,
            drift: random.choose(&[0, 20, 50, 100]),
            quota_bytes: random.one_in(10).then_some(300_000),
            joins_batches: random.one_in(2),
            turn_millis: random.choose(&[0, 1, 5]),
            value_bytes: random.choose(&[60, 60, 60, 1500]),
            renewing: random.one_in(4),
            leaps: random.one_in(4),
            accounts: side.one_in(4),
            second: side.one_in(4),
            second_forgets: side.one_in(12),
            versions: side.one_in(8),
            reads_alone: is_late,
            gives_back: is_late,
        }
    }

    /// Whether disks may take long, or fail.
    pub(crate) fn has_slow_disks(&self) -> bool {
        let slow = [
            Fault::DiskFull,
            Fault::DiskError,
            Fault::ReadError,
            Fault::DiskHang,
            Fault::DiskSlow,
            Fault::PowerCutAtWrite,
            Fault::Failpoint,
            Fault::Ambush,
        ];
        self.faults.iter().any(|fault| slow.contains(fault))
    }

    /// Whether clocks may leap, so that no lease ends when it should.
    pub(crate) fn has_clock_jumps(&self) -> bool {
        self.leaps && self.faults.contains(&Fault::ClockJump)
    }

    pub(crate) fn election_millis(&self) -> u64 {
        self.election_ticks * self.tick_millis
    }
}
