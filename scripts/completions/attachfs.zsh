#compdef attachfs
# SPDX-License-Identifier: MIT
# zsh completion for attachfs(1): what there is to complete is asked of the program.

_attachfs_list()
{
	local -a found
	found=("${(@f)$(${words[1]} --complete $1 ${words[2]} 2>/dev/null)}")
	[[ -z $found ]] || compadd "${@:2}" -a found
}

_attachfs()
{
	case ${words[CURRENT - 1]} in
	-o)
		compset -P '*,'
		_attachfs_list options -S ''
		return
		;;
	--timeout) return ;;
	esac
	if ((CURRENT == 2)); then
		_attachfs_list commands
		_attachfs_list sections
		_attachfs_list systems -S ''
		compadd -- -f -o --help --version
		return
	fi
	if [[ ${words[CURRENT]} == -* ]]; then
		_attachfs_list flags
		compadd -- --help
		return
	fi
	case ${words[2]}:$CURRENT in
	check:* | config:4)
		_attachfs_list sections
		_attachfs_list systems -S ''
		;;
	config:3) compadd show ;;
	cache:3)
		compadd verify drop
		_attachfs_list mounts
		_files
		;;
	conflicts:3)
		compadd keep
		_attachfs_list mounts
		_files
		;;
	conflicts:4) compadd mine theirs both ;;
	*)
		_attachfs_list mounts
		_files
		;;
	esac
}

_attachfs "$@"
