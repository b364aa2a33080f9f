//! The limits that are in force, each with where it comes from.

use strowger::config::{Conf, Machine};
use strowger::settings::Capacity;

/// A line for each limit that follows from the machine unless the conf says otherwise.
pub fn lines(conf: &Conf, machine: &Machine) -> Vec<String> {
    let memory = machine.memory;
    let cores = conf.server.cores.len().max(1);
    let of_memory = |capacity, key: &str| match capacity {
        Capacity::FromMemory => "a quarter of the memory".to_owned(),
        Capacity::Exactly(_) => key.to_owned(),
    };
    let connections = match conf.connections.max {
        Some(_) => "[connections] max",
        None => "the open files, less some",
    };
    let lines = [
        ("memory", mib(memory), Machine::memory_from()),
        (
            "transactions",
            (conf.per_core(memory).transactions * cores).to_string(),
            of_memory(conf.limits.transactions, "[limits] transactions"),
        ),
        ("bindings", conf.max_bindings(memory).to_string(), of_memory(conf.limits.bindings, "[limits] bindings")),
        ("connections", conf.connections.most(machine.files).to_string(), connections.to_owned()),
        (
            "open files",
            machine.files.to_string(),
            "the hard limit of this process (ulimit -Hn); of a service, LimitNOFILE of its unit".to_owned(),
        ),
    ];
    lines.into_iter().map(|(what, value, from)| format!("{value} {what}: {from}")).collect()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger::config::load;

    #[test]
    fn each_limit_has_its_origin() {
        let machine = Machine { cores: vec![0, 1], memory: 1 << 30, files: 1000 };
        let of = |text: &str| lines(&load::parse("t", text, &machine).unwrap_or_else(|faults| panic!("{faults}")), &machine);
        let by_machine = of("");
        assert!(by_machine[0].starts_with("1024 MiB memory: "), "{by_machine:?}");
        assert_eq!(
            by_machine[1..4],
            [
                "131072 transactions: a quarter of the memory",
                "524288 bindings: a quarter of the memory",
                "874 connections: the open files, less some",
            ]
        );
        assert!(by_machine[4].starts_with("1000 open files: the hard limit"), "{by_machine:?}");
        let by_conf = of("[server]\ncores = [0, 1]\n[limits]\ntransactions = 500\nbindings = 70\n[connections]\nmax = 20\n");
        assert_eq!(
            by_conf[1..4],
            ["500 transactions: [limits] transactions", "70 bindings: [limits] bindings", "20 connections: [connections] max"]
        );
    }
}
