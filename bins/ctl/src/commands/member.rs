//! `member`: shows and changes the membership.
//!
//! etcd: `etcdctl/ctlv3/command/member_command.go`.

use cli::exit::Failure;
use cli::flag::Flag;
use cli::printer::{Format, Response};
use cli::quote::quote;
use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest,
};

use super::{Command, MAINTENANCE, REMOVE};
use crate::call::{Call, is_serializable, member_id};
use crate::hint::{self, Change};
use crate::terminal::say;

const LIST_LONG: &str = "When --write-out is set to simple, this command prints out \
comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
";

const NO_ID: &str = "member ID is not provided";
const NO_PEER_URLS: &str = "member peer urls not provided";

pub(crate) fn command() -> Command {
    let short = "Membership related commands. Use `etcdctl member --help` to see subcommands";
    Command::new("member <subcommand>", short)
        .long("Membership related commands")
        .group(MAINTENANCE)
        .subcommands([
            Command::new("add <memberName> [options]", "Adds a member into the cluster")
                .flags([
                    Flag::text("peer-urls", "comma separated peer URLs for the new member."),
                    Flag::bool("learner", "indicates if the new member is raft learner"),
                ])
                .run(|call| Box::pin(add(call))),
            Command::new("remove <memberID>", "Removes a member from the cluster")
                .also(REMOVE)
                .run(|call| Box::pin(remove(call))),
            Command::new("update <memberID> [options]", "Updates a member in the cluster")
                .flags([Flag::text(
                    "peer-urls",
                    "comma separated peer URLs for the updated member.",
                )])
                .run(|call| Box::pin(update(call))),
            Command::new("list", "Lists all members in the cluster")
                .long(LIST_LONG)
                .flags([Flag::text("consistency", "Linearizable(l) or Serializable(s)").or("l")])
                .run(|call| Box::pin(list(call))),
            Command::new("promote <memberID>", "Promotes a non-voting member in the cluster")
                .long("Promotes a non-voting learner member to a voting one in the cluster.\n")
                .run(|call| Box::pin(promote(call))),
        ])
}

async fn add(mut call: Call) -> Result<(), Failure> {
    let name = new_member_name(&call)?;
    let peer_urls = peer_urls(&call)?;
    let is_learner = call.flags.bool("learner");
    let (client, printer) = call.connect().await?;
    let request = MemberAddRequest { peer_ur_ls: split(&peer_urls), is_learner };
    let response = match client.member_add(request).await {
        Ok(response) => response,
        Err(error) => return Err(hint::refused(&client, Change::Add, error).await),
    };
    printer.print(&Response::MemberAdd(&response))?;
    if printer.format == Format::Simple {
        say!("");
        say!("ETCD_NAME={}", quote(name.as_bytes()));
        say!("ETCD_INITIAL_CLUSTER={}", quote(initial_cluster(&name, &response).as_bytes()));
        say!("ETCD_INITIAL_ADVERTISE_PEER_URLS={}", quote(peer_urls.as_bytes()));
        say!("ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
        if let Some(text) = hint::after_adding(&name, &response.members) {
            hint::give(text);
        }
    }
    Ok(())
}

fn new_member_name(call: &Call) -> Result<String, Failure> {
    if call.arguments.is_empty() {
        return Err(Failure::bad_arguments("member name not provided"));
    }
    if call.arguments.len() == 1 {
        return Ok(call.text(0));
    }
    let mut message = "too many arguments".to_owned();
    for position in 0..call.arguments.len() {
        let word = call.text(position);
        if word.to_lowercase().starts_with("http") {
            message.push_str(", did you mean --peer-urls=");
            message.push_str(&word);
        }
    }
    Err(Failure::bad_arguments(message))
}

/// What the new member is to be started with: `name=url` of everyone, itself included.
fn initial_cluster(name: &str, response: &MemberAddResponse) -> String {
    let new_id = response.member.as_ref().map(|member| member.id);
    let entries = response.members.iter().flat_map(|member| {
        let name = if Some(member.id) == new_id { name } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    entries.collect::<Vec<_>>().join(",")
}

async fn remove(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly(NO_ID)?;
    let id = member_id(&id)?;
    let (client, printer) = call.connect().await?;
    let response = match client.member_remove(MemberRemoveRequest { id }).await {
        Ok(response) => response,
        Err(error) => return Err(hint::refused(&client, Change::Remove(id), error).await),
    };
    printer.print(&Response::MemberRemove { id, response: &response })
}

async fn update(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly(NO_ID)?;
    let id = member_id(&id)?;
    let peer_urls = peer_urls(&call)?;
    let (client, printer) = call.connect().await?;
    let request = MemberUpdateRequest { id, peer_ur_ls: split(&peer_urls) };
    let response = client.member_update(request).await.map_err(Failure::error)?;
    printer.print(&Response::MemberUpdate { id, response: &response })
}

async fn list(mut call: Call) -> Result<(), Failure> {
    let linearizable = !is_serializable(call.flags.text("consistency"))?;
    let (client, printer) = call.connect().await?;
    let response = client.member_list(MemberListRequest { linearizable }).await;
    printer.print(&Response::MemberList(&response.map_err(Failure::error)?))
}

async fn promote(mut call: Call) -> Result<(), Failure> {
    let [id] = call.exactly(NO_ID)?;
    let id = member_id(&id)?;
    let (client, printer) = call.connect().await?;
    let response = client.member_promote(MemberPromoteRequest { id }).await;
    let response = response.map_err(Failure::error)?;
    printer.print(&Response::MemberPromote { id, response: &response })
}

fn peer_urls(call: &Call) -> Result<String, Failure> {
    let urls = call.flags.text("peer-urls");
    if urls.is_empty() {
        return Err(Failure::bad_arguments(NO_PEER_URLS));
    }
    Ok(urls.to_owned())
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(str::to_owned).collect()
}
