// SPDX-License-Identifier: GPL-2.0-only
/*
 * A file of debugfs has a number. A kernel without debugfs needs none.
 * names: debugfs_get_aux_num
 * reason: numbered files of debugfs are in Linux 7.0 and newer, and in NVIDIA's 6.17
 */
#include "probe.h"

#ifdef CONFIG_DEBUG_FS
unsigned long probe(struct file *file);
unsigned long probe(struct file *file)
{
	return debugfs_get_aux_num(file);
}
#endif
