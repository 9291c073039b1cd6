// SPDX-License-Identifier: GPL-2.0-only
/* That the kernel's headers are whole: every probe includes what this includes, and no more. */
#include "probe.h"
