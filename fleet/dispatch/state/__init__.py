"""What a batch is at: `replay` folds journal records into the frozen `views`; `reduce_*` say what each record changes."""
