//! The table format, for lists of members and endpoints.
//!
//! etcd: `etcdctl/ctlv3/command/printer_table.go`.

use super::{Response, endpoint};
use crate::table::render;

/// Appends the response. False if it is not a list.
#[allow(clippy::wildcard_enum_match_arm, reason = "only lists are tables")]
pub(super) fn write(response: &Response<'_>, out: &mut Vec<u8>) -> bool {
    let table = match response {
        Response::MemberList(response) => {
            render(&endpoint::MEMBER_HEADER, &endpoint::member_rows(&response.members))
        }
        Response::EndpointHealth(list) => {
            render(&endpoint::HEALTH_HEADER, &endpoint::health_rows(list))
        }
        Response::EndpointStatus(list) => {
            render(&endpoint::STATUS_HEADER, &endpoint::status_rows(list))
        }
        Response::EndpointHashKv(list) => {
            render(&endpoint::HASH_HEADER, &endpoint::hash_rows(list))
        }
        _ => return false,
    };
    out.extend_from_slice(table.as_bytes());
    true
}
