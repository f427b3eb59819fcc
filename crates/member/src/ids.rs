//! Request ids as etcd makes them.

use base::MemberId;

/// Counts request ids upward: two bytes of the member's id, five bytes of the wall clock's
/// milliseconds at start, one byte that counts and carries over (etcd: pkg/idutil/id.go).
///
/// The services and the member itself both propose; they count in different lanes (even and odd),
/// so that their ids never meet.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: u64,
}

impl RequestIds {
    /// Even ids, for the services. `now_millis` is the wall clock at start.
    #[must_use]
    pub fn for_services(member: MemberId, now_millis: u64) -> Self {
        Self { prefix: (member.0 & 0xffff) << 48, suffix: (now_millis & 0xff_ffff_ffff) << 8 }
    }

    /// Odd ids, for what the member proposes by itself.
    #[must_use]
    pub fn for_member(member: MemberId, now_millis: u64) -> Self {
        let mut ids = Self::for_services(member, now_millis);
        ids.suffix |= 1;
        ids
    }

    /// The next id.
    pub fn next_id(&mut self) -> u64 {
        self.suffix = self.suffix.wrapping_add(2) & 0xffff_ffff_ffff;
        self.prefix | self.suffix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_never_meet_and_ids_never_repeat() {
        let mut services =
            RequestIds::for_services(MemberId(0x8e9e_05c5_2164_694d), 1_700_000_000_000);
        let mut member = RequestIds::for_member(MemberId(0x8e9e_05c5_2164_694d), 1_700_000_000_000);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(services.next_id()));
            assert!(seen.insert(member.next_id()));
        }
        assert!(seen.iter().all(|id| id >> 48 == 0x694d));
    }
}
