-- A transfer that several homes posted is shown once all its legs are here. Rows from before have no total.

alter table transfers add column legs_total integer;
