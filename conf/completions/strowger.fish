# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_strowger_global_optspecs
    string join \n c/conf= control= h/help V/version
end

function __fish_strowger_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_strowger_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_strowger_using_subcommand
    set -l cmd (__fish_strowger_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c strowger -n "__fish_strowger_needs_command" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_needs_command" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_needs_command" -s V -l version -d 'Print version'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "run" -d 'Start the server in the foreground. It prints one line for each listener when it is ready to serve'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "check" -d 'Check a conf: a summary if it is valid, else FILE:LINE:COLUMN and what is wrong for each fault, and exit 1'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "ul" -d 'Show or change the location table of the running server'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "user" -d 'Change who may register and call, in the database that [auth] users of the conf names. No server needs to run; one that does sees it within a second'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "health" -d 'Ask the running server whether it is alive: exit 0 if every worker answers, 1 if not, or if there is no server. For a container\'s health check and the like; /health and /ready beside the metrics say the same by HTTP'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "connections" -d 'Show the TCP and TLS connections of the running server'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "targets" -d 'Show the targets of the running server\'s routes: which are up, and of those that have failed why, since when, and for how long they are passed over; and which other next hops have failed'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "trunks" -d 'Show the running server\'s accounts with carriers ([[trunk]]), and how their registrations stand'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "reload" -d 'Have the running server read its conf again, and the certificates, keys and users that it names: all of it or, if anything is wrong, nothing. Calls and connections go on. SIGHUP does the same'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "restart" -d 'Have a new process serve in the place of the running one, with the conf as it is now, and the program if that was replaced. No call fails, no connection is refused, and none is closed: what the old process has it keeps until it is over'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "drain" -d 'Have the running server begin no new dialogs (503 with Retry-After), and stop once no request waits for its answer any more. Registrations, requests in a dialog and new connections go on until then. SIGTERM does the same'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "log" -d 'Show how much the running server logs, or change it until it stops or the conf says otherwise'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "top" -d 'Watch the running server: a live screen of rates, latency, connections, CPU and the limits being hit. q quits'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "trace" -d 'Follow calls through the running server: each message that comes and leaves, and what was decided between, over every transport, what comes by TLS in the clear. Passwords\' hashes and media keys are masked'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "stats" -d 'Print the running server\'s counters and gauges, by their Prometheus names'
complete -c strowger -n "__fish_strowger_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand run" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand run" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand check" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand check" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand check" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -f -a "show" -d 'Show what is bound to an address-of-record, or to all of them'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -f -a "add" -d 'Bind a contact to an address-of-record'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -f -a "rm" -d 'Remove one contact of an address-of-record, or all of them'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and not __fish_seen_subcommand_from show add rm help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from show" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from show" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from show" -l json -d 'Print a JSON list'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -l expires -d 'For how many seconds; [registrar] default_expires of the conf if not given' -r
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -l q -d 'How much it is preferred to the others, 0 to 1; 1 if not given' -r
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -l path -d 'The proxies that requests for it go through first, as in "<sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>"' -r
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from rm" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from rm" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what is bound to an address-of-record, or to all of them'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from help" -f -a "add" -d 'Bind a contact to an address-of-record'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from help" -f -a "rm" -d 'Remove one contact of an address-of-record, or all of them'
complete -c strowger -n "__fish_strowger_using_subcommand ul; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "add" -d 'Add a user. The password is asked for, twice; the database holds hashes, never a password'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "passwd" -d 'Give a user another password, which is asked for, twice'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "rm" -d 'Remove a user'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "list" -d 'Show all users, and for which algorithms they have hashes'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "import" -d 'Add users by their hashes, all of them or none. The hashes of a user that exists already are replaced'
complete -c strowger -n "__fish_strowger_using_subcommand user; and not __fish_seen_subcommand_from add passwd rm list import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -l password -d 'Take this password. Others on the machine can see it while the command runs, and the shell keeps it' -r
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -l password-stdin -d 'Take the password from the first line of standard input'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -l create -d 'Make the database if there is none'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from passwd" -l password -d 'Take this password. Others on the machine can see it while the command runs, and the shell keeps it' -r
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from passwd" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from passwd" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from passwd" -l password-stdin -d 'Take the password from the first line of standard input'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from passwd" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from rm" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from rm" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from list" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from list" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from import" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from import" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from import" -l create -d 'Make the database if there is none'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a user. The password is asked for, twice; the database holds hashes, never a password'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "passwd" -d 'Give a user another password, which is asked for, twice'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "rm" -d 'Remove a user'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show all users, and for which algorithms they have hashes'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "import" -d 'Add users by their hashes, all of them or none. The hashes of a user that exists already are replaced'
complete -c strowger -n "__fish_strowger_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand health" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand health" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand health" -l ready -d 'Exit 1 if the server is alive but not ready, too'
complete -c strowger -n "__fish_strowger_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand connections" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand connections" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand connections" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand targets" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand targets" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand targets" -l json -d 'Print one JSON object'
complete -c strowger -n "__fish_strowger_using_subcommand targets" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand trunks" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand trunks" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand trunks" -l json -d 'Print a JSON list'
complete -c strowger -n "__fish_strowger_using_subcommand trunks" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand reload" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand reload" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand restart" -l deadline -d 'End the old process after this many seconds in any case; [server] restart_deadline of the conf if not given. While one of a restart before still lives there is no other restart, and this is the time that it has left' -r
complete -c strowger -n "__fish_strowger_using_subcommand restart" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand restart" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand restart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand drain" -l deadline -d 'Stop after this many seconds in any case; [server] drain_deadline of the conf if not given. A second command sets another time' -r
complete -c strowger -n "__fish_strowger_using_subcommand drain" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand drain" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand drain" -l calls -d 'Wait for established calls to end, too. The server knows of them where it writes records of calls ([records] file) and stays in their way ([proxy] record_route); without --deadline it waits for as long as a call may be silent ([records] lost_after)'
complete -c strowger -n "__fish_strowger_using_subcommand drain" -l wait -d 'Return when the server has stopped, not when it has begun to drain'
complete -c strowger -n "__fish_strowger_using_subcommand drain" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand log" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand log" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand log" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand top" -l interval -d 'Seconds from one look at the server to the next, 0.1 to 3600' -r
complete -c strowger -n "__fish_strowger_using_subcommand top" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand top" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand top" -l once -d 'Print one screen after one interval'
complete -c strowger -n "__fish_strowger_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l call -d 'Only the call of this Call-ID, which must be the whole one' -r
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l user -d 'Only calls whose From, To or Request-URI names this user: 1003, 1003@example.com or sip:1003@example.com' -r
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l peer -d 'Only calls of which a message came from this address or went there: 192.0.2.1, 192.0.2.1:5060 or [2001:db8::1]:5060' -r
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l seconds -d 'End after so many seconds, 1 to 3600; 60 if not given' -r
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l count -d 'End after so many messages, 1 to 1000000; 10000 if not given' -r
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l pcap -d 'Write the messages to this file, which Wireshark opens as SIP; "-" is standard output. A file that is there is replaced' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand trace" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l json -d 'Print a line of JSON for each message and each decision'
complete -c strowger -n "__fish_strowger_using_subcommand trace" -l brief -d 'Print one line of text for each message, also on a terminal'
complete -c strowger -n "__fish_strowger_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c strowger -n "__fish_strowger_using_subcommand stats" -s c -l conf -d 'The conf. If not given: conf/strowger.toml, then /etc/strowger/strowger.toml, then built-in defaults. Relative paths in it are below its folder' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand stats" -l control -d 'The control socket, instead of [control] socket of the conf' -r -F
complete -c strowger -n "__fish_strowger_using_subcommand stats" -l json -d 'Print one JSON object: names and values'
complete -c strowger -n "__fish_strowger_using_subcommand stats" -s h -l help -d 'Print help'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "run" -d 'Start the server in the foreground. It prints one line for each listener when it is ready to serve'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "check" -d 'Check a conf: a summary if it is valid, else FILE:LINE:COLUMN and what is wrong for each fault, and exit 1'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "ul" -d 'Show or change the location table of the running server'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "user" -d 'Change who may register and call, in the database that [auth] users of the conf names. No server needs to run; one that does sees it within a second'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "health" -d 'Ask the running server whether it is alive: exit 0 if every worker answers, 1 if not, or if there is no server. For a container\'s health check and the like; /health and /ready beside the metrics say the same by HTTP'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "connections" -d 'Show the TCP and TLS connections of the running server'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "targets" -d 'Show the targets of the running server\'s routes: which are up, and of those that have failed why, since when, and for how long they are passed over; and which other next hops have failed'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "trunks" -d 'Show the running server\'s accounts with carriers ([[trunk]]), and how their registrations stand'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "reload" -d 'Have the running server read its conf again, and the certificates, keys and users that it names: all of it or, if anything is wrong, nothing. Calls and connections go on. SIGHUP does the same'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "restart" -d 'Have a new process serve in the place of the running one, with the conf as it is now, and the program if that was replaced. No call fails, no connection is refused, and none is closed: what the old process has it keeps until it is over'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "drain" -d 'Have the running server begin no new dialogs (503 with Retry-After), and stop once no request waits for its answer any more. Registrations, requests in a dialog and new connections go on until then. SIGTERM does the same'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "log" -d 'Show how much the running server logs, or change it until it stops or the conf says otherwise'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "top" -d 'Watch the running server: a live screen of rates, latency, connections, CPU and the limits being hit. q quits'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "trace" -d 'Follow calls through the running server: each message that comes and leaves, and what was decided between, over every transport, what comes by TLS in the clear. Passwords\' hashes and media keys are masked'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "stats" -d 'Print the running server\'s counters and gauges, by their Prometheus names'
complete -c strowger -n "__fish_strowger_using_subcommand help; and not __fish_seen_subcommand_from run check ul user health connections targets trunks reload restart drain log top trace stats help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from ul" -f -a "show" -d 'Show what is bound to an address-of-record, or to all of them'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from ul" -f -a "add" -d 'Bind a contact to an address-of-record'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from ul" -f -a "rm" -d 'Remove one contact of an address-of-record, or all of them'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "add" -d 'Add a user. The password is asked for, twice; the database holds hashes, never a password'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "passwd" -d 'Give a user another password, which is asked for, twice'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "rm" -d 'Remove a user'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "list" -d 'Show all users, and for which algorithms they have hashes'
complete -c strowger -n "__fish_strowger_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "import" -d 'Add users by their hashes, all of them or none. The hashes of a user that exists already are replaced'
