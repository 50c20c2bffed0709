# SPDX-License-Identifier: MIT
# bash completion for attachfs(1): what there is to complete is asked of the program.

_attachfs_say()
{
	"${COMP_WORDS[0]}" --complete "$@" 2>/dev/null
}

# _attachfs_lines WORD LIST...: the lines of the lists that begin with WORD; mountpoints may hold blanks
_attachfs_lines()
{
	local word=$1 line

	shift
	while IFS= read -r line; do
		[[ $line != "$word"* ]] || COMPREPLY+=("$(printf %q "$line")")
	done < <(for list; do _attachfs_say "$list" "${COMP_WORDS[1]}"; done)
}

# _attachfs_paths WORD LIST...: the lines of the lists, and files, or with -d directories; bash quotes them itself
_attachfs_paths()
{
	local kind=-f word line

	[ "$1" != -d ] || { kind=-d && shift; }
	word=$1
	shift
	while IFS= read -r line; do
		[[ $line != "$word"* ]] || COMPREPLY+=("$line")
	done < <(for list; do _attachfs_say "$list"; done; compgen "$kind" -- "$word")
	compopt -o filenames
}

# the last element of a comma-separated list of options
_attachfs_options()
{
	local last=${1##*,} line

	while IFS= read -r line; do
		[[ $line != "$last"* ]] || COMPREPLY+=("${1%"$last"}$line")
	done < <(_attachfs_say options)
	compopt -o nospace
}

_attachfs()
{
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	case $before in
	-o) _attachfs_options "$word" && return 0 ;;
	--timeout | =) return 0 ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		_attachfs_lines "$word" commands sections systems
		[[ $word != -* ]] || COMPREPLY=($(compgen -W "-f -o -h --help -V --version" -- "$word"))
		return 0
	fi
	case ${COMP_WORDS[1]}:$word in
	-*) ;;
	*:-*) _attachfs_lines "$word" flags && COMPREPLY+=($(compgen -W "--help" -- "$word")) && return 0 ;;
	check:*) _attachfs_lines "$word" sections systems && return 0 ;;
	config:*)
		[ "$COMP_CWORD" != 2 ] || COMPREPLY=($(compgen -W show -- "$word"))
		[ "$COMP_CWORD" = 2 ] || _attachfs_lines "$word" sections systems
		return 0
		;;
	cache:*) [ "$COMP_CWORD" != 2 ] || COMPREPLY=($(compgen -W "verify drop" -- "$word")) ;;
	conflicts:*)
		[ "$COMP_CWORD" != 2 ] || COMPREPLY=($(compgen -W keep -- "$word"))
		[ "$COMP_CWORD:$before" != 3:keep ] || { COMPREPLY=($(compgen -W "mine theirs both" -- "$word")) && return 0; }
		;;
	esac
	if _attachfs_say commands | grep -qxF -- "${COMP_WORDS[1]}"; then
		_attachfs_paths "$word" mounts
	else
		_attachfs_paths -d "$word"
	fi
}

complete -F _attachfs attachfs
