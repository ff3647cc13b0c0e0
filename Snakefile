workflow.include(
    "workflow/Snakefile", overwrite_default_target=True
)  # as the main file is read: its `all` is the target
