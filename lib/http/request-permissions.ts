import { type PermissionRequirement, resolveRequirement } from '../core/keys/permissions.ts'
import { requirementOf } from '../core/keys/requirement-of-request.ts'

/** The permissions that a request needs: fixed, or a function of the request, which answers at once. */
export type RequestPermissions<Request> =
  | PermissionRequirement
  | ((request: Request) => PermissionRequirement)

/** The same permissions for each request, checked, or what asks the function of the request. @throws TypeError */
export function permissionsFor<Request>(
  permissions: RequestPermissions<Request> | undefined,
): (request: Request) => PermissionRequirement | undefined {
  if (typeof permissions === 'function') return (request) => requirementOf(() => permissions(request))
  const fixed = permissions === undefined ? undefined : resolveRequirement('permissions', permissions)
  return () => fixed
}
