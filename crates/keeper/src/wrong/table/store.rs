//! Codes of the state, its members and its backups.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static QUORUM_AT_RISK: Code = Code {
    name: "QUORUM_AT_RISK",
    faults: &[30],
    class: Class::Page,
    sentence: "{down} of {voters} copies of the state does not answer ({members}); everything works, but no further one may stop.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if the machine is gone for good: `evenkeel replace {node}`",
    decision: false,
    page: "The state lives on an odd number of servers and needs more than half of them. Put off everything optional until all are back.",
};

pub static SERVERS_STOPPED: Code = Code {
    name: "SERVERS_STOPPED",
    faults: &[31],
    class: Class::Page,
    sentence: "{down} of {voters} copies of the state do not answer ({members}), though {node} itself is alive: running apps go on, nothing can be changed.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "its log says why: journalctl -u evenkeel there; the same for the others that are alive",
    decision: false,
    page: "Without more than half of the servers nobody may write. A machine that answers needs only its program again, and nothing is lost by it.",
};

pub static QUORUM_LOST: Code = Code {
    name: "QUORUM_LOST",
    faults: &[31],
    class: Class::Page,
    sentence: "{down} of {voters} servers are unreachable ({members}): running apps go on, nothing can be changed. Power on or reconnect one of them. Only if they are gone for good:",
    command: "evenkeel recover quorum",
    place: Place::There,
    risk: Risk::DataRisk,
    time: "5 min",
    otherwise: "it changes nothing by itself: it says how old the data is and prints the line that goes on with one server",
    decision: true,
    page: "Without more than half of the servers nobody may write. Bringing one back is always better than going on with what one survivor knows, and loses nothing.",
};

pub static STORE_FULL: Code = Code {
    name: "STORE_FULL",
    faults: &[32],
    class: Class::Page,
    sentence: "The cluster's database on {node} is {fill} full; reads work, changes fail at the limit.",
    command: "evenkeel kubectl get --raw /metrics | grep apiserver_storage_objects | sort -k2 -n | tail",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "delete what has grown without need; where even that is refused, give it more: --etcd-arg=quota-backend-bytes=BYTES",
    decision: false,
    page: "The database has a limit so that it stays quick. What grows is nearly always one kind of object that some program makes without end.",
};

pub static STORE_CORRUPT: Code = Code {
    name: "STORE_CORRUPT",
    faults: &[9],
    class: Class::Page,
    sentence: "{node}'s copy of the state differs from the others and must not be used; the others go on.",
    command: "evenkeel leave",
    place: Place::There,
    risk: Risk::Disruptive,
    time: "5 min",
    otherwise: "on another server: `evenkeel node remove {node}`. After a look at memory and disk it joins again with a token",
    decision: false,
    page: "Servers compare their copies every hour, and one that was away when it is back; most are right. A copy that differs was damaged by memory or disk: the machine leaves, which puts the copy aside, and joins again with a token.",
};

pub static DEFRAG_STALL: Code = Code {
    name: "DEFRAG_STALL",
    faults: &[33],
    class: Class::Info,
    sentence: "Cleaning up the database on {node} held it up for {millis} ms.",
    command: "evenkeel status",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "nothing is to be done; if it comes often, the database is large for its disk",
    decision: false,
    page: "Members are cleaned up one at a time, the leader last.",
};

pub static OLD_MEMBER: Code = Code {
    name: "OLD_MEMBER",
    faults: &[34],
    class: Class::Notify,
    sentence: "{node} comes from another or an older life of this cluster and was not let in; nothing was changed.",
    command: "evenkeel leave --local",
    place: Place::There,
    risk: Risk::DataRisk,
    time: "1 min",
    otherwise: "if its volumes are still needed, copy {data} away first; then join it again with a token",
    decision: true,
    page: "A disk that was away carries an identity that was given up. Letting it in would mix two histories.",
};

pub static LEADER_FLAPPING: Code = Code {
    name: "LEADER_FLAPPING",
    faults: &[35],
    class: Class::Notify,
    sentence: "Leadership of the state moved {count} times in {minutes} min; changes pause each time.",
    command: "evenkeel status",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "look for a slow disk, a busy processor or lost packets between the servers",
    decision: false,
    page: "A leader is replaced when it does not answer in time. Without another finding that explains it, disks come first.",
};

pub static BACKUP_FAILED: Code = Code {
    name: "BACKUP_FAILED",
    faults: &[36],
    class: Class::Notify,
    sentence: "The last good backup is {age} old{why}.",
    command: "evenkeel backup",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "mend the target {target}, then look again",
    decision: false,
    page: "Backups are made by themselves. One that is older than twice its interval means that they are not.",
};

pub static BACKUP_UNRESTORABLE: Code = Code {
    name: "BACKUP_UNRESTORABLE",
    faults: &[37],
    class: Class::Page,
    sentence: "The backup of {day} could not be restored on trial: {why}.{older}",
    command: "evenkeel backup && evenkeel backup prove",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "keep the older good one, and look why the trial failed",
    decision: false,
    page: "A backup counts once it was restored on trial. Make a new one and keep the last that was proven.",
};

pub static RESTORED: Code = Code {
    name: "RESTORED",
    faults: &[39],
    class: Class::Info,
    sentence: "The state was restored to {to}; changes after that are gone, everything was read anew.",
    command: "evenkeel kubectl get pods -A",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "apply again what was changed since",
    decision: false,
    page: "Revisions go on beyond what clients have seen, and watches are told to read again.",
};
