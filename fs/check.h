/* SPDX-License-Identifier: MIT */
#ifndef ATTACHFS_FS_CHECK_H
#define ATTACHFS_FS_CHECK_H

/* attachfs check [-o opt,...] SOURCE: tries the credentials and the collections without mounting or writing. 0, 1 something failed, 2 usage. */
int check_run(int argc, char **argv);

#endif
