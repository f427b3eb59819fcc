//! The commands and their flags (features 4.2, 4.3).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/ctl.go, etcdctl/ctlv2/command.

use futures_util::future::LocalBoxFuture;

use super::flags::{Flag, Order};
use super::{Call, Done, access, backup, health, import, keys, members, watch};

/// A command, or a list of commands.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// One line.
    pub(super) usage: &'static str,
    /// What stands behind the name in help; "" for anything.
    pub(super) arguments: &'static str,
    /// More lines.
    pub(super) description: &'static str,
    pub(super) flags: &'static [Flag],
    pub(super) order: Order,
    /// If there are any, the next word is one of them.
    pub(super) commands: &'static [Self],
    pub(super) run: Run,
}

/// What a command does.
pub(super) type Run = for<'c> fn(&'c Call) -> LocalBoxFuture<'c, Done>;

impl Command {
    const fn new(
        name: &'static str,
        usage: &'static str,
        arguments: &'static str,
        run: Run,
    ) -> Self {
        let (description, flags, commands): (_, &[Flag], &[Self]) = ("", &[], &[]);
        Self { name, usage, arguments, description, flags, order: Order::Anywhere, commands, run }
    }

    const fn list(name: &'static str, usage: &'static str, commands: &'static [Self]) -> Self {
        let nothing: Run = |_| Box::pin(async { Ok(()) });
        Self { commands, ..Self::new(name, usage, "", nothing) }
    }

    const fn flags(self, flags: &'static [Flag]) -> Self {
        Self { flags, ..self }
    }
}

/// Before the command (CTL2-03 to CTL2-11).
pub(super) const GLOBAL: &[Flag] = &[
    Flag::bool(&["debug"], "output cURL commands which can be used to reproduce the request"),
    Flag::bool(&["no-sync"], "don't synchronize cluster information before sending request"),
    Flag::text(
        &["output", "o"],
        "output response in the given format (`simple`, `extended` or `json`)",
    )
    .or("simple"),
    Flag::text(
        &["discovery-srv", "D"],
        "domain name to query for SRV records describing cluster endpoints",
    ),
    Flag::bool(&["insecure-discovery"], "accept insecure SRV records describing cluster endpoints"),
    Flag::text(&["peers", "C"], "DEPRECATED - \"--endpoints\" should be used instead"),
    Flag::text(&["endpoint"], "DEPRECATED - \"--endpoints\" should be used instead"),
    Flag::text(
        &["endpoints"],
        "a comma-delimited list of machine addresses in the cluster (default: \
         \"http://127.0.0.1:2379,http://127.0.0.1:4001\")",
    ),
    Flag::text(&["cert-file"], "identify HTTPS client using this SSL certificate file"),
    Flag::text(&["key-file"], "identify HTTPS client using this SSL key file"),
    Flag::text(&["ca-file"], "verify certificates of HTTPS-enabled servers using this CA bundle"),
    Flag::text(
        &["username", "u"],
        "provide username[:password] and prompt if password is not supplied.",
    ),
    Flag::duration(&["timeout"], "connection timeout per request").or("2s"),
    Flag::duration(&["total-timeout"], "timeout for the command execution (except watch)").or("5s"),
];

const TTL: Flag = Flag::int(&["ttl"], "key time-to-live in seconds");
const SORT: Flag = Flag::bool(&["sort"], "returns result in sorted order");
const QUORUM: Flag = Flag::bool(&["quorum", "q"], "require quorum for get request");
const AFTER_INDEX: Flag = Flag::int(&["after-index"], "watch after the given index");

/// In the order of help.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("backup", "backup an etcd directory", " ", |call| Box::pin(backup::run(call)))
        .flags(&[
            Flag::text(&["data-dir"], "Path to the etcd data dir"),
            Flag::text(&["wal-dir"], "Path to the etcd wal dir"),
            Flag::text(&["backup-dir"], "Path to the backup dir"),
            Flag::text(&["backup-wal-dir"], "Path to the backup wal dir"),
            Flag::bool(&["with-v3"], "Backup v3 backend data"),
        ]),
    Command::new("cluster-health", "check the health of the etcd cluster", " ", |call| {
        Box::pin(health::run(call))
    })
    .flags(&[Flag::bool(
        &["forever", "f"],
        "forever check the health every 10 second until CTRL+C",
    )]),
    Command::new("import", "import a snapshot to a cluster", " ", |call| {
        Box::pin(import::run(call))
    })
    .flags(&[
        Flag::text(
            &["snap"],
            "Path to a snapshot of etcd 0.4.x, or to a .snap file of a later member",
        ),
        Flag::texts(&["hidden"], "Hidden key spaces to import from snapshot"),
        Flag::int(&["c"], "Number of concurrent clients to import the data").or("10"),
    ]),
    Command::new("mk", "make a new key with a given value", "<key> <value>", |call| {
        Box::pin(keys::make(call))
    })
    .flags(&[Flag::bool(&["in-order"], "create in-order key under directory <key>"), TTL]),
    Command::new("mkdir", "make a new directory", "<key>", |call| {
        Box::pin(keys::directory(call, Some(false)))
    })
    .flags(&[TTL]),
    Command::new("rm", "remove a key or a directory", "<key>", |call| Box::pin(keys::remove(call)))
        .flags(&[
            Flag::bool(&["dir"], "removes the key if it is an empty directory or a key-value pair"),
            Flag::bool(
                &["recursive", "r"],
                "removes the key and all child keys(if it is a directory)",
            ),
            Flag::text(&["with-value"], "previous value"),
            Flag::int(&["with-index"], "previous index"),
        ]),
    Command::new(
        "rmdir",
        "removes the key if it is an empty directory or a key-value pair",
        "<key>",
        |call| Box::pin(keys::remove_directory(call)),
    ),
    Command::new("get", "retrieve the value of a key", "<key>", |call| Box::pin(keys::get(call)))
        .flags(&[SORT, QUORUM]),
    Command::new("ls", "retrieve a directory", "[key]", |call| Box::pin(keys::list(call))).flags(
        &[
            SORT,
            Flag::bool(&["recursive", "r"], "returns all key names recursively for the given path"),
            Flag::bool(&["p"], "append slash (/) to directories"),
            QUORUM,
        ],
    ),
    Command {
        description: "Set sets the value of a key.\n\n   When <value> begins with '-', <value> is \
                      interpreted as a flag.\n   Insert '--' for workaround:\n\n   $ set -- <key> \
                      <value>",
        ..Command::new("set", "set the value of a key", "<key> <value>", |call| {
            Box::pin(keys::set(call))
        })
        .flags(&[
            TTL,
            Flag::text(&["swap-with-value"], "previous value"),
            Flag::int(&["swap-with-index"], "previous index"),
        ])
    },
    Command::new(
        "setdir",
        "create a new directory or update an existing directory TTL",
        "<key>",
        |call| Box::pin(keys::directory(call, None)),
    )
    .flags(&[TTL]),
    Command::new("update", "update an existing key with a given value", "<key> <value>", |call| {
        Box::pin(keys::update(call))
    })
    .flags(&[TTL]),
    Command::new("updatedir", "update an existing directory", "<key> <value>", |call| {
        Box::pin(keys::directory(call, Some(true)))
    })
    .flags(&[TTL]),
    Command::new("watch", "watch a key for changes", "<key>", |call| Box::pin(watch::watch(call)))
        .flags(&[
            Flag::bool(&["forever", "f"], "forever watch a key until CTRL+C"),
            AFTER_INDEX,
            Flag::bool(&["recursive", "r"], "returns all values for key and child keys"),
        ]),
    Command {
        order: Order::CommandLine,
        ..Command::new(
            "exec-watch",
            "watch a key for changes and exec an executable",
            "<key> <command> [args...]",
            |call| Box::pin(watch::exec_watch(call)),
        )
        .flags(&[
            AFTER_INDEX,
            Flag::bool(&["recursive", "r"], "watch all values for key and child keys"),
        ])
    },
    Command::list("member", "member add, remove and list subcommands", MEMBER),
    Command::list("user", "user add, grant and revoke subcommands", USER),
    Command::list("role", "role add, grant and revoke subcommands", ROLE),
    Command::list("auth", "overall auth controls", AUTH),
];

const MEMBER: &[Command] = &[
    Command::new("list", "enumerate existing cluster members", " ", |call| {
        Box::pin(members::list(call))
    }),
    Command::new("add", "add a new member to the etcd cluster", "<name> <peerURL>", |call| {
        Box::pin(members::add(call))
    }),
    Command::new(
        "remove",
        "remove an existing member from the etcd cluster",
        "<memberID>",
        |call| Box::pin(members::remove(call)),
    ),
    Command::new(
        "update",
        "update an existing member in the etcd cluster",
        "<memberID> <peerURLs>",
        |call| Box::pin(members::update(call)),
    ),
];

const ROLES: &[Flag] = &[Flag::texts(&["roles"], "List of roles to grant or revoke")];

const USER: &[Command] = &[
    Command::new("add", "add a new user for the etcd cluster", "<user>", |call| {
        Box::pin(access::add_user(call))
    }),
    Command::new("get", "get details for a user", "<user>", |call| {
        Box::pin(access::get_user(call))
    }),
    Command::new("list", "list all current users", "<user>", |call| {
        Box::pin(access::list_users(call))
    }),
    Command::new("remove", "remove a user for the etcd cluster", "<user>", |call| {
        Box::pin(access::remove_user(call))
    }),
    Command::new("grant", "grant roles to an etcd user", "<user>", |call| {
        Box::pin(access::change_roles(call, "grant"))
    })
    .flags(ROLES),
    Command::new("revoke", "revoke roles for an etcd user", "<user>", |call| {
        Box::pin(access::change_roles(call, "revoke"))
    })
    .flags(ROLES),
    Command::new("passwd", "change password for a user", "<user>", |call| {
        Box::pin(access::change_password(call))
    }),
];

const ROLE: &[Command] = &[
    Command::new("add", "add a new role for the etcd cluster", "<role> ", |call| {
        Box::pin(access::add_role(call))
    }),
    Command::new("get", "get details for a role", "<role>", |call| {
        Box::pin(access::get_role(call))
    }),
    Command::new("list", "list all roles", " ", |call| Box::pin(access::list_roles(call))),
    Command::new("remove", "remove a role from the etcd cluster", "<role>", |call| {
        Box::pin(access::remove_role(call))
    }),
    Command::new("grant", "grant path matches to an etcd role", "<role>", |call| {
        Box::pin(access::change_permission(call, "grant"))
    })
    .flags(&[
        Flag::text(&["path"], "Path granted for the role to access"),
        Flag::bool(&["read"], "Grant read-only access"),
        Flag::bool(&["write"], "Grant write-only access"),
        Flag::bool(&["readwrite", "rw"], "Grant read-write access"),
    ]),
    Command::new("revoke", "revoke path matches for an etcd role", "<role>", |call| {
        Box::pin(access::change_permission(call, "revoke"))
    })
    .flags(&[
        Flag::text(&["path"], "Path revoked for the role to access"),
        Flag::bool(&["read"], "Revoke read access"),
        Flag::bool(&["write"], "Revoke write access"),
        Flag::bool(&["readwrite", "rw"], "Revoke read-write access"),
    ]),
];

const AUTH: &[Command] = &[
    Command::new("enable", "enable auth access controls", " ", |call| {
        Box::pin(access::switch(call, "PUT"))
    }),
    Command::new("disable", "disable auth access controls", " ", |call| {
        Box::pin(access::switch(call, "DELETE"))
    }),
];
