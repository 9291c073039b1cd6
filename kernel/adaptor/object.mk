# SPDX-License-Identifier: GPL-2.0-only
# objtool adds unwind data and the places of returns, as to a compiled object, though it calls an
# object of several ones linked; where the kernel has it run on the whole module, there is no command
# here.
quiet_cmd_object = COPY    $@
      cmd_object = cat $< > $@ $(if $(cmd_objtool),; $(objtool) $(objtool-args) --link $@)
$(obj)/rust.o: $(obj)/rust.o_shipped FORCE
	$(call if_changed,object)
targets += rust.o
