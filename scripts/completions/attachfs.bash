# SPDX-License-Identifier: MIT
# bash completion for attachfs(1). The options are asked of the program itself.

_attachfs_options()
{
	attachfs --help 2>/dev/null | sed -nE 's/^    ([a-z_]+)(=[^ ]*)? .*/\1\2/p' | sed -E 's/=.*/=/'
}

_attachfs_sections()
{
	sed -nE 's/^[[:blank:]]*\[([^]]+)\].*/\1/p' "${XDG_CONFIG_HOME:-$HOME/.config}/attachfs/config" \
		/etc/attachfs/config 2>/dev/null
}

_attachfs_mounts()
{
	awk '/ - fuse\.attachfs / { print $5 }' /proc/self/mountinfo
}

_attachfs()
{
	local commands="status sync pending failed retry refresh events conflicts umount check"
	local systems="perscom: rillsoft: enterprise-tester: servicemax:"
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} list last
	local IFS=$' \t\n'

	COMPREPLY=()
	if [ "$before" = -o ] || [[ $before == = ]]; then
		[ "$before" = -o ] || return 0
		# a comma-separated list: complete its last element
		last=${word##*,}
		list=${word%"$last"}
		COMPREPLY=($(compgen -P "$list" -W "$(_attachfs_options)" -- "$last"))
		compopt -o nospace
		return 0
	fi
	case $word in
	-*) COMPREPLY=($(compgen -W "-f -o -h --help -V --version" -- "$word")) && return 0 ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W "$commands $(_attachfs_sections) $systems" -- "$word"))
		return 0
	fi
	case ${COMP_WORDS[1]} in
	status | sync | pending | failed | retry | refresh | events | conflicts | umount)
		COMPREPLY=($(compgen -W "$(_attachfs_mounts)" -- "$word") $(compgen -d -- "$word"))
		;;
	check) COMPREPLY=($(compgen -W "$(_attachfs_sections) $systems" -- "$word")) ;;
	*) COMPREPLY=($(compgen -d -- "$word")) ;;
	esac
}

complete -F _attachfs attachfs
