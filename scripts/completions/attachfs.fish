# SPDX-License-Identifier: MIT
# fish completion for attachfs(1): what there is to complete is asked of the program.

function __attachfs_say
    set -l words (commandline -opc)
    $words[1] --complete $argv 2>/dev/null
end

# What the word that is completed may be: a command or source, a source, a path, or one of a few words.
function __attachfs_place
    set -l words (commandline -opc)
    set -l n (count $words)
    if test $n = 1
        echo first
    else if not contains -- $words[2] (__attachfs_say commands)
        echo mountpoint
    else
        switch $words[2]:$n
            case 'check:*' 'config:3'
                echo source
            case 'config:*'
                echo show
            case 'list:*'
                echo flags
            case 'cache:2'
                echo cache
            case 'conflicts:2'
                echo conflicts
            case 'conflicts:3'
                test $words[3] = keep; and echo choice; or echo path
            case '*'
                test $words[-1] = --timeout; and echo nothing; or echo path
        end
    end
end

function __attachfs_is
    contains -- (__attachfs_place) $argv
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

complete -c attachfs -f
complete -c attachfs -s h -l help -d 'What it does'
complete -c attachfs -s o -x -a '(__attachfs_options)' -d Options
complete -c attachfs -n '__attachfs_is first' -a '(__attachfs_say commands)'
complete -c attachfs -n '__attachfs_is first source' -a '(__attachfs_say sections; __attachfs_say systems)'
complete -c attachfs -n '__attachfs_is mountpoint path cache conflicts' -F
complete -c attachfs -n '__attachfs_is path cache conflicts' -a '(__attachfs_say mounts)'
complete -c attachfs -n 'not __attachfs_is first mountpoint nothing' -a '(__attachfs_flags)'
complete -c attachfs -n '__attachfs_is show' -a show
complete -c attachfs -n '__attachfs_is cache' -a 'verify drop'
complete -c attachfs -n '__attachfs_is conflicts' -a keep
complete -c attachfs -n '__attachfs_is choice' -a 'mine theirs both'
