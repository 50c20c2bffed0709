# SPDX-License-Identifier: MIT
# fish completion for attachfs(1): what there is to complete is asked of the program.

function __attachfs_say
    set -l words (commandline -opc)
    $words[1] --complete $argv 2>/dev/null
end

function __attachfs_command
    set -l words (commandline -opc)
    set -q words[2]; and contains -- $words[2] (__attachfs_say commands)
end

function __attachfs_flags
    set -l words (commandline -opc)
    __attachfs_say flags $words[2]
end

# the last element of a comma-separated list of options
function __attachfs_options
    set -l given (commandline -ct)
    set -l before (string replace -r '[^,]*$' '' -- $given)
    printf "$before%s\n" (__attachfs_say options)
end

complete -c attachfs -n __fish_use_subcommand -a '(__attachfs_say commands)'
complete -c attachfs -n __fish_use_subcommand -a '(__attachfs_say sections; __attachfs_say systems)'
complete -c attachfs -s h -l help -d 'What it does'
complete -c attachfs -s o -x -a '(__attachfs_options)' -d Options
complete -c attachfs -n __attachfs_command -a '(__attachfs_say mounts; __attachfs_flags)'
complete -c attachfs -n '__fish_seen_subcommand_from check config' -a '(__attachfs_say sections; __attachfs_say systems)'
complete -c attachfs -n '__fish_seen_subcommand_from config' -a show
complete -c attachfs -n '__fish_seen_subcommand_from cache' -a 'verify drop'
complete -c attachfs -n '__fish_seen_subcommand_from conflicts' -a 'keep mine theirs both'
