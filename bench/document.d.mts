export function lastReport(report: object): string
export function speed(report: object): string
