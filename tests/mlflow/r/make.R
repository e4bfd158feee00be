# Makes model.rds and answers.json beside it: Rscript --vanilla tests/mlflow/r/make.R tests/mlflow/r
folder <- commandArgs(TRUE)[1]
seen <- data.frame(age = c(23, 35, 41, 52, 29, 60, 47, 38), dose = c(1, 2.5, 2, 4, 1.5, 3, 5, 0.5))
seen$effect <- 0.3 * seen$age + 1.7 * seen$dose + c(0.2, -0.4, 0.1, 0.3, -0.1, -0.2, 0.4, -0.3)
model <- lm(effect ~ age + dose, seen)
saveRDS(model, file.path(folder, "model.rds"))
rows <- data.frame(age = c(20, 33.5, 47, 80), dose = c(0, 1.25, 3, 7))
numbers <- function(values) paste0("[", paste(format(values, digits = 17, trim = TRUE), collapse = ", "), "]")
line <- sprintf('{"rows": {"age": %s, "dose": %s}, "answers": %s}', numbers(rows$age), numbers(rows$dose), numbers(predict(model, rows)))
writeLines(line, file.path(folder, "answers.json"))
