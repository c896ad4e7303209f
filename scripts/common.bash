# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts have in common: where things are, and how they talk.

# The top of this source tree.
# shellcheck disable=SC2034 # For those who source this.
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")

# Everything that scripts/setup makes: the build root, kernels.
cache=${DM_THIN_RS_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/dm-thin-rs}

# shellcheck disable=SC2034 # For those who source this.
root=$cache/root

# die MESSAGE: one line that says what is wrong, and the end.
die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# mounted_beneath DIR: the mount points at DIR and below. Nothing may be deleted that has any.
mounted_beneath()
{
	local dir point rest
	dir=$(realpath -m "$1")
	# The fifth field is the mount point, with spaces and the like as octal escapes.
	while read -r _ _ _ _ point rest; do
		printf -v point '%b' "${point//\\/\\0}"
		if [[ $point == "$dir" || $point == "$dir"/* ]]; then
			printf '%s\n' "$point"
		fi
	done </proc/self/mountinfo
}

# remove_tree DIR: deletes it, unless something is mounted in it.
remove_tree()
{
	local dir=$1 mounts
	[[ $dir == /?*/?* ]] || die "will not delete '$dir'"
	[[ -e $dir ]] || return 0
	mounts=$(mounted_beneath "$dir")
	if [[ $mounts ]]; then
		die "will not delete $dir: ${mounts%%$'\n'*} is mounted; unmount it first"
	fi
	rm -rf --one-file-system -- "$dir"
}
