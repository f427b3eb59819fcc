//! Results in the formats that `--write-out` names.
//!
//! A [`Response`] is everything a command may have to show; each format is a module that turns one
//! into bytes, or says that it does not know it. Nothing is printed half.
//!
//! etcd: `etcdctl/ctlv3/command/printer.go`.

mod endpoint;
mod fields;
mod json;
mod messages;
mod protobuf;
mod simple;
mod table;

use std::io::{self, Write};
use std::path::Path;

use proto::etcdserverpb as pb;

use crate::exit::{ExitCode, Failure};

pub use endpoint::{EndpointHashKv, EndpointHealth, EndpointStatus};

/// How results look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people and simple scripts.
    Simple,
    /// One `"Name" : value` line per field.
    Fields,
    /// One line of JSON.
    Json,
    /// The encoded response.
    Protobuf,
    /// A drawn table, for lists.
    Table,
}

impl Format {
    /// Reads the value of `--write-out`.
    ///
    /// # Errors
    ///
    /// There is no such format.
    pub fn parse(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return Err(Failure::new(ExitCode::BadFeature, "unsupported output format")),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
        }
    }
}

/// Something to show.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each variant is the response that it is named after")]
pub enum Response<'a> {
    Put(&'a pb::PutResponse),
    Get(&'a pb::RangeResponse),
    Delete(&'a pb::DeleteRangeResponse),
    Txn(&'a pb::TxnResponse),
    Watch(&'a pb::WatchResponse),
    LeaseGrant(&'a pb::LeaseGrantResponse),
    LeaseRevoke { id: i64, response: &'a pb::LeaseRevokeResponse },
    LeaseKeepAlive(&'a pb::LeaseKeepAliveResponse),
    LeaseTimeToLive { response: &'a pb::LeaseTimeToLiveResponse, keys: bool },
    LeaseLeases(&'a pb::LeaseLeasesResponse),
    MemberAdd(&'a pb::MemberAddResponse),
    MemberRemove { id: u64, response: &'a pb::MemberRemoveResponse },
    MemberUpdate { id: u64, response: &'a pb::MemberUpdateResponse },
    MemberPromote { id: u64, response: &'a pb::MemberPromoteResponse },
    MemberList(&'a pb::MemberListResponse),
    EndpointHealth(&'a [EndpointHealth]),
    EndpointStatus(&'a [EndpointStatus]),
    EndpointHashKv(&'a [EndpointHashKv]),
    MoveLeader { from: u64, to: u64, response: &'a pb::MoveLeaderResponse },
    DowngradeValidate(&'a pb::DowngradeResponse),
    DowngradeEnable(&'a pb::DowngradeResponse),
    DowngradeCancel(&'a pb::DowngradeResponse),
    Alarm(&'a pb::AlarmResponse),
    RoleAdd { role: &'a str, response: &'a pb::AuthRoleAddResponse },
    RoleGet { role: &'a str, response: &'a pb::AuthRoleGetResponse },
    RoleDelete { role: &'a str, response: &'a pb::AuthRoleDeleteResponse },
    RoleList(&'a pb::AuthRoleListResponse),
    RoleGrantPermission { role: &'a str, response: &'a pb::AuthRoleGrantPermissionResponse },
    RoleRevokePermission(RevokedPermission<'a>),
    UserAdd { user: &'a str, response: &'a pb::AuthUserAddResponse },
    UserGet { user: &'a str, response: &'a pb::AuthUserGetResponse },
    UserList(&'a pb::AuthUserListResponse),
    UserChangePassword(&'a pb::AuthUserChangePasswordResponse),
    UserGrantRole { user: &'a str, role: &'a str, response: &'a pb::AuthUserGrantRoleResponse },
    UserRevokeRole { user: &'a str, role: &'a str, response: &'a pb::AuthUserRevokeRoleResponse },
    UserDelete { user: &'a str, response: &'a pb::AuthUserDeleteResponse },
    AuthStatus(&'a pb::AuthStatusResponse),
}

/// Which permission was taken from which role.
#[derive(Clone, Copy, Debug)]
pub struct RevokedPermission<'a> {
    /// The role.
    pub role: &'a str,
    /// The first key.
    pub key: &'a [u8],
    /// As on the wire: empty for one key, a zero byte for "to the last key".
    pub range_end: &'a [u8],
    /// The answer.
    pub response: &'a pb::AuthRoleRevokePermissionResponse,
}

/// What a format makes of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// For standard output.
    pub stdout: Vec<u8>,
    /// For standard error.
    pub stderr: Vec<u8>,
}

/// A format with its variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printer {
    /// The format.
    pub format: Format,
    /// Keys, values and ids in hexadecimal where the format knows how.
    pub hex: bool,
    /// Values without keys, in the simple format.
    pub value_only: bool,
}

impl Printer {
    /// Shows a response.
    ///
    /// # Errors
    ///
    /// The format does not know this response, or the output cannot be written.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only a reader that left is special")]
    pub fn print(&self, response: &Response<'_>) -> Result<(), Failure> {
        let rendered = self.render(response)?;
        let written = write_all(&mut io::stderr().lock(), &rendered.stderr)
            .and_then(|()| write_all(&mut io::stdout().lock(), &rendered.stdout));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(ExitCode::Unread),
            _ => {
                let stdout = Path::new("/dev/stdout");
                Failure::new(ExitCode::Io, crate::os::path_error("write", stdout, &error))
            }
        })
    }

    /// Turns a response into what is to be shown.
    ///
    /// # Errors
    ///
    /// The format does not know this response.
    ///
    /// # Panics
    ///
    /// Never: writing to memory does not fail.
    pub fn render(&self, response: &Response<'_>) -> Result<Rendered, Failure> {
        let mut out = Rendered::default();
        let known = match self.format {
            Format::Simple => simple::write(self, response, &mut out).map(|()| true),
            Format::Fields => fields::write(self.hex, response, &mut out.stdout),
            Format::Json => Ok(json::write(self.hex, response, &mut out.stdout)),
            Format::Protobuf => Ok(protobuf::write(response, &mut out.stdout)),
            Format::Table => Ok(table::write(response, &mut out.stdout)),
        };
        if known.expect("writing to memory") {
            return Ok(out);
        }
        let message = format!("{} not supported as output format", self.format.name());
        Err(Failure::new(ExitCode::BadFeature, message))
    }
}

fn write_all(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests;
