//! Codes of disks.

use crate::wrong::code::{Class, Code, Place, Risk};

pub static DISK_FULL: Code = Code {
    name: "DISK_FULL",
    faults: &[1],
    class: Class::Page,
    sentence: "{node} is running out of disk: {free} left on {path}; changes and new containers are refused when it is full.",
    command: "du -xh --max-depth=3 {path} | sort -h | tail -n 15",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "remove what is large and not needed, or images with `evenkeel images rm NAME`; else grow the disk",
    decision: false,
    page: "A full disk stops writes, not reads: what was acknowledged is safe. Writes are taken again by themselves as soon as there is room.",
};

pub static INODES_FULL: Code = Code {
    name: "INODES_FULL",
    faults: &[2],
    class: Class::Page,
    sentence: "{node} can hardly create files on {path}: {free} inodes are left, though space is free.",
    command: "du -x --inodes --max-depth=3 {path} | sort -n | tail -n 15",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "remove the many small files, and mend whatever makes them",
    decision: false,
    page: "Every file takes an inode, whatever its size, and a file system is made with a fixed number of them.",
};

pub static DISK_FAILING: Code = Code {
    name: "DISK_FAILING",
    faults: &[3],
    class: Class::Page,
    sentence: "{node}'s disk answers with errors on {path} ({why}); what runs goes on as long as it needs no disk.",
    command: "evenkeel kubectl cordon {node}",
    place: Place::Anywhere,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "make a backup at once (`evenkeel backup`), then replace the disk",
    decision: false,
    page: "I/O errors come from the disk, its cable or its controller and do not heal. Nothing new should be placed there; a backup comes before everything else.",
};

pub static DISK_READONLY: Code = Code {
    name: "DISK_READONLY",
    faults: &[4],
    class: Class::Page,
    sentence: "{node}'s disk at {path} is read-only; what runs goes on, changes and new containers there fail.",
    command: "dmesg --level=emerg,alert,crit,err | tail -n 20",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "without an I/O error in it, `mount -o remount,rw` is enough; with one, replace the disk",
    decision: false,
    page: "Kernels remount a file system read-only after an I/O error, to save what is there. Making it writable again without looking risks it.",
};

pub static DISK_HANG: Code = Code {
    name: "DISK_HANG",
    faults: &[5],
    class: Class::Page,
    sentence: "{node} is alive but its disk at {path} does not answer; everything there that writes waits.",
    command: "systemctl reboot --force",
    place: Place::There,
    risk: Risk::Disruptive,
    time: "5 min",
    otherwise: "cut its power; if the disk hangs again, replace it",
    decision: false,
    page: "A write that was to be flushed did not come back. Processes that wait for it cannot be killed; a reboot is the way out.",
};

pub static STORE_SLOW_DISK: Code = Code {
    name: "STORE_SLOW_DISK",
    faults: &[6],
    class: Class::Notify,
    sentence: "{node}'s disk takes {millis} ms for one flushed write; every change of the cluster feels it.",
    command: "cat /proc/pressure/io",
    place: Place::There,
    risk: Risk::Safe,
    time: "1 min",
    otherwise: "move what writes much to another disk or node; the state wants below 10 ms",
    decision: false,
    page: "A change is acknowledged after it is flushed to disk. A disk that is slow or shared with something that writes much slows the whole API.",
};
