// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shows a test the file position that a driver's read and write leave behind.
 *
 * A VFIO device file can't seek, and pread hides the position that it was given back. This
 * device passes reads and writes on to a target file, each with the position that it was called
 * with, and keeps what the target made of it. At the position CONTROL, a write of an int selects
 * the target by descriptor, -1 for none, and a read of a u64 tells once by how much the last
 * position moved, and then 0.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define CONTROL 0x7ffffffffffff000LL

struct state {
	struct file *target;
	u64 moved;
};

static int position_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(sizeof(struct state), GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static int position_release(struct inode *inode, struct file *file)
{
	struct state *state = file->private_data;

	if (state->target)
		fput(state->target);
	kfree(state);
	return 0;
}

static ssize_t select_target(struct state *state, const char __user *buf, size_t count)
{
	struct file *target;
	int fd;

	if (count != sizeof(fd) || copy_from_user(&fd, buf, sizeof(fd)))
		return -EINVAL;
	target = fd == -1 ? NULL : fget(fd);
	if (!target && fd != -1)
		return -EBADF;
	if (target && (!target->f_op->read || !target->f_op->write)) {
		fput(target);
		return -EINVAL;
	}
	if (state->target)
		fput(state->target);
	state->target = target;
	return count;
}

static ssize_t position_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	struct state *state = file->private_data;
	loff_t pos = *ppos;
	ssize_t ret;

	if (pos == CONTROL) {
		if (count != sizeof(state->moved) ||
		    copy_to_user(buf, &state->moved, sizeof(state->moved)))
			return -EINVAL;
		state->moved = 0;
		return count;
	}
	if (!state->target)
		return -EBADF;
	ret = state->target->f_op->read(state->target, buf, count, &pos);
	state->moved = pos - *ppos;
	return ret;
}

static ssize_t position_write(struct file *file, const char __user *buf, size_t count,
			      loff_t *ppos)
{
	struct state *state = file->private_data;
	loff_t pos = *ppos;
	ssize_t ret;

	if (pos == CONTROL)
		return select_target(state, buf, count);
	if (!state->target)
		return -EBADF;
	ret = state->target->f_op->write(state->target, buf, count, &pos);
	state->moved = pos - *ppos;
	return ret;
}

static const struct file_operations position_fops = {
	.owner = THIS_MODULE,
	.open = position_open,
	.release = position_release,
	.read = position_read,
	.write = position_write,
};

static struct miscdevice position_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "varia_position",
	.fops = &position_fops,
	.mode = 0600,
};
module_misc_device(position_device);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("File positions, shown to tests");
