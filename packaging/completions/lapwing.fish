# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lapwing_global_optspecs
    string join \n h/help V/version
end

function __fish_lapwing_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lapwing_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lapwing_using_subcommand
    set -l cmd (__fish_lapwing_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lapwing -n "__fish_lapwing_needs_command" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_needs_command" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "alerts" -d 'Show the alerts of this host'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "check" -d 'Check the configuration, the rules and this host'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "events" -d 'Print events as they happen'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "explain" -d 'Explain a rule, its result for recorded events, or a diagnostic code'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "fmt" -d 'Format the queries in rule files'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "record" -d 'Record events to a file'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "replay" -d 'Run the rules on recorded events and print the alerts'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "run" -d 'Run the agent in the foreground'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "search" -d 'Search recorded events with an EQL or KQL query'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "sink" -d 'Manage the delivery of alerts'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "status" -d 'Show the agent\'s status'
complete -c lapwing -n "__fish_lapwing_needs_command" -f -a "test" -d 'Run rule tests (NAME.test.toml)'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l since -d 'Oldest time: a length of time before now (`2h`, `7d`) or a timestamp (`2026-11-22T03:00:00Z`, `2026-11-22`)' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l rule -d 'Rule: a part of its name, or its id' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l severity -d 'Minimum severity' -r -f -a "low\t''
medium\t''
high\t''
critical\t''"
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l limit -d 'Maximum number; 0 for all [default: 50; with --follow, 10 before following]' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l log -d 'Alert log [default: the one of the configuration]' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l brief -d 'Omit the rule\'s description and guide'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l building-blocks -d 'Include alerts of building block rules'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -l json -d 'Print the JSON documents of the log, one per line'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -s f -l follow -d 'Print the newest alerts, oldest first, and then new ones as they are written'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand alerts" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -l rules -d 'Check only these rules, without the configuration' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -l exceptions -d 'Exceptions to check instead of those of the configuration; `--rules` alone checks none' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -l json -d 'Print one JSON object'
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -s v -l verbose -d 'Report event coverage per rule'
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand check" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand events" -l config -d 'Configuration file; it need not exist' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand events" -l json -d 'Print JSON lines on a terminal too'
complete -c lapwing -n "__fish_lapwing_using_subcommand events" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand events" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l events -d 'Recorded events: show for each condition of the rule whether it held, and the values. NDJSON, a JSON array or CloudTrail files, compressed or not; `-` is standard input' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l rules -d 'Rules to search instead of those of the configuration' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l exceptions -d 'Exceptions to apply instead of those of the configuration' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l list -d 'List all codes'
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l sources -d 'List the kinds of events of this host\'s sources, with their fields'
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -l json -d 'Print JSON'
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand explain" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand fmt" -l check -d 'Print a diff instead of changing files; fail if there is one'
complete -c lapwing -n "__fish_lapwing_using_subcommand fmt" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand fmt" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand record" -l duration -d 'Duration, such as `90s` or `1h` [default: until Ctrl-C]' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand record" -l config -d 'Configuration file; it need not exist' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand record" -l json -d 'Print a summary as one JSON object'
complete -c lapwing -n "__fish_lapwing_using_subcommand record" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand record" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -l rules -d 'Rules to run instead of those of the configuration' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -l exceptions -d 'Exceptions to apply instead of those of the configuration; `--rules` alone applies none' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -l json -d 'Print the alerts as JSON lines'
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand replay" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand run" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand run" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand run" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l language -d 'Query language' -r -f -a "eql\t'Event Query Language'
kuery\t'Kibana Query Language'"
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l schema -d 'Fields and their types: `ecs`, `infer` (from the data), or a file with an Elasticsearch mapping, whose missing fields are inferred' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l event-category-field -d 'Field with the event category' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l timestamp-field -d 'Field with the time of an event' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l tiebreaker-field -d 'Field that orders events of the same time [default: their order in the files]' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l size -d 'Maximum number of results, whatever the pipes say' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l result-position -d 'Results to return if there are more than the maximum' -r -f -a "head\t'Earliest'
tail\t'Latest'"
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l max-samples-per-key -d 'Maximum number of samples per key' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l config -d 'Configuration file, for the GeoIP databases of CloudTrail' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -l json -d 'Print JSON lines: `{"event": …}`, or `{"join_keys": […], "events": […]}` for sequences and samples'
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c lapwing -n "__fish_lapwing_using_subcommand search" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and not __fish_seen_subcommand_from retry" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and not __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and not __fish_seen_subcommand_from retry" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and not __fish_seen_subcommand_from retry" -f -a "retry" -d 'Send the dead letters of a sink again: the alerts that upstream rejected'
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and __fish_seen_subcommand_from retry" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand sink; and __fish_seen_subcommand_from retry" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand status" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand status" -l health -d 'Show the health and the reasons; exit code 0 if `healthy`, 1 if `degraded`, 2 if `blind`'
complete -c lapwing -n "__fish_lapwing_using_subcommand status" -l json -d 'Print one JSON object'
complete -c lapwing -n "__fish_lapwing_using_subcommand status" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand status" -s V -l version -d 'Print version'
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -l filter -d 'Run only tests with this word in their name or their rule\'s name, or with this rule id' -r
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -l junit -d 'Write a JUnit report to this file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -l config -d 'Configuration file' -r -F
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -l json -d 'Print JSON lines: one per test, then the counts'
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -s h -l help -d 'Print help'
complete -c lapwing -n "__fish_lapwing_using_subcommand test" -s V -l version -d 'Print version'
