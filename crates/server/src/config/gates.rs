//! Feature gates: named switches with a stage and a default.
//!
//! Source: etcd server/features/etcd_features.go (names, stages, defaults),
//! pkg/featuregate/feature_gate.go (rules and texts). `AllAlpha` and `AllBeta` set those gates of
//! their stage that the same or an earlier list does not name.

use std::collections::BTreeMap;

use base::quote::quote;

/// How settled a gate's feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

impl Stage {
    /// As metrics and help name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// One switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// The leader compares the hashes of compacted revisions.
    CompactHashCheck,
    /// A lease may be renewed before this member has applied everything.
    FastLeaseKeepAlive,
    /// A restarted member compares hashes with its peers before it serves.
    InitialCorruptCheck,
    /// The leader replicates the remaining time of leases.
    LeaseCheckpoint,
    /// The remaining time is also stored.
    LeaseCheckpointPersist,
    /// Urgent requests overtake others under overload.
    PriorityRequest,
    /// Connections to peers leave from the advertised address.
    SetMemberLocalAddr,
    /// The health service says "not serving" while defragmenting.
    StopGRPCServiceOnDefrag,
    /// Checks of a write transaction read through a shared buffer.
    TxnModeWriteWithSharedBuffer,
}

impl Gate {
    /// Every gate, by name.
    pub const ALL: [Self; 9] = [
        Self::CompactHashCheck,
        Self::FastLeaseKeepAlive,
        Self::InitialCorruptCheck,
        Self::LeaseCheckpoint,
        Self::LeaseCheckpointPersist,
        Self::PriorityRequest,
        Self::SetMemberLocalAddr,
        Self::StopGRPCServiceOnDefrag,
        Self::TxnModeWriteWithSharedBuffer,
    ];

    /// The gate of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gate| gate.name() == name)
    }

    /// As written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CompactHashCheck => "CompactHashCheck",
            Self::FastLeaseKeepAlive => "FastLeaseKeepAlive",
            Self::InitialCorruptCheck => "InitialCorruptCheck",
            Self::LeaseCheckpoint => "LeaseCheckpoint",
            Self::LeaseCheckpointPersist => "LeaseCheckpointPersist",
            Self::PriorityRequest => "PriorityRequest",
            Self::SetMemberLocalAddr => "SetMemberLocalAddr",
            Self::StopGRPCServiceOnDefrag => "StopGRPCServiceOnDefrag",
            Self::TxnModeWriteWithSharedBuffer => "TxnModeWriteWithSharedBuffer",
        }
    }

    /// What the gate's feature always is, and why, if the gate switches nothing here.
    pub(crate) fn fixed(self) -> Option<(bool, &'static str)> {
        match self {
            Self::LeaseCheckpointPersist => {
                Some((true, "checkpoints of leases are always stored, as by etcd since 3.6"))
            }
            Self::TxnModeWriteWithSharedBuffer => {
                Some((true, "a write transaction reads where it writes, without any copy"))
            }
            Self::CompactHashCheck
            | Self::FastLeaseKeepAlive
            | Self::InitialCorruptCheck
            | Self::LeaseCheckpoint
            | Self::PriorityRequest
            | Self::SetMemberLocalAddr
            | Self::StopGRPCServiceOnDefrag => None,
        }
    }

    /// Its stage; beta gates are on by default.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::FastLeaseKeepAlive | Self::TxnModeWriteWithSharedBuffer => Stage::Beta,
            Self::CompactHashCheck
            | Self::InitialCorruptCheck
            | Self::LeaseCheckpoint
            | Self::LeaseCheckpointPersist
            | Self::PriorityRequest
            | Self::SetMemberLocalAddr
            | Self::StopGRPCServiceOnDefrag => Stage::Alpha,
        }
    }
}

/// Why a list of gates was refused, in etcd's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// A name without `=true` or `=false`.
    #[error("missing bool value for {0}")]
    MissingValue(String),
    /// A value that is no boolean.
    #[error(
        "invalid value of {gate}={value}, err: strconv.ParseBool: parsing {}: invalid syntax",
        quote(.value)
    )]
    InvalidValue {
        /// The gate as written.
        gate: String,
        /// Its value as written.
        value: String,
    },
    /// No gate has this name.
    #[error("unrecognized feature gate: {0}")]
    Unrecognized(String),
}

/// The state of every gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// What was set, by name, groups included: what the settings echo prints.
    set: BTreeMap<&'static str, bool>,
    enabled: BTreeMap<Gate, bool>,
    /// What lists set by name, as opposed to older names and groups.
    listed: BTreeMap<Gate, bool>,
}

impl FeatureGates {
    /// Adds a list such as `LeaseCheckpoint=true,AllBeta=false` to what is set already.
    ///
    /// # Errors
    ///
    /// [`GateError`]; nothing is changed then.
    pub fn apply(&mut self, list: &str) -> Result<(), GateError> {
        let mut named = Vec::new();
        let mut groups = Vec::new();
        for pair in list.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').map_or((pair, None), |(n, v)| (n, Some(v)));
            let name = name.trim();
            let value = value.ok_or_else(|| GateError::MissingValue(name.to_owned()))?.trim();
            let on = super::value::parse_bool(value).ok_or_else(|| GateError::InvalidValue {
                gate: name.to_owned(),
                value: value.to_owned(),
            })?;
            if let Some(gate) = Gate::find(name) {
                named.push((gate, on));
            } else if let Some(group) = GROUPS.into_iter().find(|(group, _)| *group == name) {
                groups.push((group, on));
            } else {
                return Err(GateError::Unrecognized(name.to_owned()));
            }
        }
        // Gates named one by one win over their group wherever they stand in the list.
        for (gate, on) in named {
            self.listed.insert(gate, on);
            self.set(gate, on);
        }
        for ((name, stage), on) in groups {
            self.set.insert(name, on);
            for gate in Gate::ALL.into_iter().filter(|gate| gate.stage() == stage) {
                if !self.enabled.contains_key(&gate) {
                    self.set(gate, on);
                }
            }
        }
        Ok(())
    }

    /// Sets one gate.
    pub fn set(&mut self, gate: Gate, on: bool) {
        self.set.insert(gate.name(), on);
        self.enabled.insert(gate, on);
    }

    /// Whether the feature is on.
    #[must_use]
    pub fn is_enabled(&self, gate: Gate) -> bool {
        let default = gate.stage() == Stage::Beta;
        self.enabled.get(&gate).copied().unwrap_or(default)
    }

    /// The groups of gates, and whether each was set as one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&'static str, Stage, bool)> {
        GROUPS.into_iter().map(|(name, stage)| (name, stage, self.set.get(name) == Some(&true)))
    }

    /// What the gate was set to, if it was.
    #[must_use]
    pub fn chosen(&self, gate: Gate) -> Option<bool> {
        self.enabled.get(&gate).copied()
    }

    /// Gates that were set to what they cannot be here: the state and why not.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = (Gate, bool, &'static str)> {
        Gate::ALL.into_iter().filter_map(|gate| {
            let (fixed, why) = gate.fixed()?;
            let chosen = self.chosen(gate)?;
            (chosen != fixed).then_some((gate, chosen, why))
        })
    }

    /// What a list set the gate to by its own name.
    pub(crate) fn listed(&self, gate: Gate) -> Option<bool> {
        self.listed.get(&gate).copied()
    }
}

impl std::fmt::Display for FeatureGates {
    /// What was set, sorted by name: `A=true,B=false`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (name, on)) in self.set.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{name}={on}")?;
        }
        Ok(())
    }
}

const GROUPS: [(&str, Stage); 2] = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];

/// One line per gate for the help text.
pub(crate) fn known_gates() -> Vec<String> {
    let groups = GROUPS.into_iter().map(|(name, stage)| (name, stage, false));
    let gates =
        Gate::ALL.into_iter().map(|gate| (gate.name(), gate.stage(), gate.stage() == Stage::Beta));
    let mut lines: Vec<_> = groups
        .chain(gates)
        .map(|(name, stage, default)| {
            format!("{name}=true|false ({} - default={default})", stage.name())
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-140 to SRV-147.
    #[test]
    fn beta_gates_are_on_and_alpha_gates_are_off() {
        let gates = FeatureGates::default();
        let on: Vec<_> =
            Gate::ALL.into_iter().filter(|gate| gates.is_enabled(*gate)).map(Gate::name).collect();
        assert_eq!(on, ["FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"]);
        assert_eq!(gates.to_string(), "");
    }

    /// SRV-148.
    #[test]
    fn groups_set_what_is_not_named() {
        let mut gates = FeatureGates::default();
        gates.apply("AllAlpha=true, LeaseCheckpoint = f,,AllBeta=0").unwrap();
        assert!(gates.is_enabled(Gate::InitialCorruptCheck));
        assert!(!gates.is_enabled(Gate::LeaseCheckpoint));
        assert!(!gates.is_enabled(Gate::FastLeaseKeepAlive));
    }

    /// SRV-148: an unknown gate is an error.
    #[test]
    fn wrong_lists_are_refused_whole() {
        for (list, error) in [
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=yes",
                "invalid value of LeaseCheckpoint=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
        ] {
            let mut gates = FeatureGates::default();
            let refused = gates.apply(&format!("InitialCorruptCheck=true,{list}")).unwrap_err();
            assert_eq!(refused.to_string(), error);
            assert_eq!(gates, FeatureGates::default());
        }
    }
}
