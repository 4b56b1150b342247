//! Codes of clocks and certificates.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static CLOCK_SKEW: Code = Code {
    name: "CLOCK_SKEW",
    faults: &[24],
    class: Class::Notify,
    sentence: "{node}'s clock is {offset} {direction} of {by}'s; certificates and logs are judged wrongly when it grows.",
    command: "chronyc makestep",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "see why it has no time source: `timedatectl timesync-status`",
    decision: false,
    page: "Clocks of servers should agree within a tenth of a second. Leases here do not depend on the wall clock; certificates and people do.",
};

pub static CLOCK_JUMP: Code = Code {
    name: "CLOCK_JUMP",
    faults: &[25],
    class: Class::Page,
    sentence: "{node}'s clock jumped by {step}; certificates may be called expired or not yet valid.",
    command: "chronyc makestep",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "set the clock from another server; if it jumps at each boot, the battery of its clock is empty",
    decision: false,
    page: "Wall time moved against the time since boot. Running pods do not care; certificates and schedules do.",
};

pub static CERT_EXPIRING: Code = Code {
    name: "CERT_EXPIRING",
    faults: &[26],
    class: Class::Notify,
    sentence: "The certificate {name} of {node} should have been renewed {late} ago and was not; it ends in {left}.",
    command: "evenkeel certificate check",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "if Evenkeel does not run there, start it: systemctl start evenkeel; else its log says why",
    decision: false,
    page: "Certificates renew themselves at two thirds of their life in the running program. One that is overdue was not renewed: the program does not run, or cannot write or reach a server.",
};

pub static CERT_EXPIRED: Code = Code {
    name: "CERT_EXPIRED",
    faults: &[27],
    class: Class::Page,
    sentence: "The certificate {name} of {node} ended {ended} ago: {node} is locked out of what asks for it. Pods run on.",
    command: "systemctl restart evenkeel",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "compare the clocks, then look at `evenkeel certificate check` there",
    decision: false,
    page: "A machine that starts proves itself with its own password, which does not expire, and gets new certificates.",
};

pub static CA_EXPIRING: Code = Code {
    name: "CA_EXPIRING",
    faults: &[28],
    class: Class::Notify,
    sentence: "The authority {name} ends on {day}: in {left}. Every certificate of the cluster hangs on it.",
    command: "evenkeel certificate check",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "plan its change months ahead",
    decision: false,
    page: "Authorities last ten years and do not renew themselves.",
};
