"""One thin command per rule: arguments in, one call into ``workflow.lib``, files out."""
