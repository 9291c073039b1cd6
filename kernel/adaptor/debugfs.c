// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files of a device in debugfs. Rust names the files and writes their lines.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "adaptor.h"

static int adaptor_file_show(struct seq_file *seq, void *unused)
{
	u8 text[VARIA_TEXT_LEN];
	u64 cursor = 0;

	while (varia_line(seq->private, debugfs_get_aux_num(seq->file), &cursor, text,
			  sizeof(text)) > 0)
		seq_printf(seq, "%s\n", text);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(adaptor_file);

void adaptor_show_device(struct adaptor_device *dev, struct dentry *root)
{
	struct dentry *folder = debugfs_create_dir(pci_name(dev->core.pdev), root);
	u8 name[VARIA_NAME_LEN];
	u32 file;

	for (file = 0; !varia_file(file, name, sizeof(name)); file++)
		debugfs_create_file_aux_num(name, 0400, folder, dev->state, file,
					    &adaptor_file_fops);
}
